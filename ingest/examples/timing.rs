//! temp
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::Request;
use http_body_util::BodyExt;
use schemas::*;
use std::sync::Arc;
use std::time::Instant;
use storage::definitions::*;
use storage::idempotency::*;
use storage::log::*;
use tokio::sync::watch;
use tower::ServiceExt;

struct Log(std::sync::atomic::AtomicU64);
#[async_trait]
impl LogWriter for Log {
    fn partitions(&self) -> PartitionCount {
        PartitionCount::new(12).unwrap()
    }
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Offset, AppendError>> {
        records
            .iter()
            .map(|_| Ok(Offset(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))))
            .collect()
    }
    fn available(&self) -> Result<(), AppendError> {
        Ok(())
    }
}
struct Defs(Arc<Catalog>, watch::Sender<()>);
#[async_trait]
impl Definitions for Defs {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.clone()
    }
    fn is_loaded(&self) -> bool {
        true
    }
    fn changes(&self) -> watch::Receiver<()> {
        self.1.subscribe()
    }
    async fn change(&self, _: &BudgetId, _: &Change<'_>) -> Result<Arc<Budget>, DefinitionError> {
        Err(DefinitionError::Unavailable("".into()))
    }
}
struct Idem;
#[async_trait]
impl Idempotency for Idem {
    async fn begin(&self, a: &[Attempt]) -> Vec<Begun> {
        vec![Begun::First; a.len()]
    }
    async fn finish(&self, _: &[(Attempt, Option<Receipt>)]) {}
}
fn body(n: usize, cats: usize) -> String {
    let ids = [
        "general-public-services",
        "defence",
        "public-order-and-safety",
        "economic-affairs",
        "environmental-protection",
        "housing-and-community-amenities",
        "health",
        "recreation-culture-and-religion",
        "education",
        "social-protection",
    ];
    let mut m = vec![];
    let each = 100 / cats;
    for i in 0..cats {
        let v = if i == 0 { 100 - each * (cats - 1) } else { each };
        m.push(format!("\"{}\":{}.50", ids[i], v));
    }
    // fix the sum: subtract
    let mut s = format!("{{\"person\":\"person-{n}\",\"allocation\":{{{}}}}}", m.join(","));
    if cats > 1 {
        s = s.replacen(".50", &format!(".{:02}", 0), cats);
    } else {
        s = s.replacen(".50", "", 1);
    }
    s
}
#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Bare {
    person: String,
    allocation: std::collections::HashMap<String, f64>,
}

fn app() -> Router {
    let budgets: Vec<Budget> = default_budgets().unwrap();
    let mut c = Catalog::default();
    for mut b in budgets {
        b.frozen = true;
        b.revision = 1;
        c = c.with(Arc::new(b));
    }
    let parts = ingest::IngestParts {
        log: Arc::new(Log(0.into())),
        definitions: Arc::new(Defs(Arc::new(c), watch::Sender::new(()))),
        idempotency: Arc::new(Idem),
        hasher: PersonKeyHasher::new(&[7; 32]).unwrap(),
    };
    let config = ingest::IngestConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        max_in_flight_records: 100_000,
        admin_token: None,
    };
    ingest::routes(&config, parts, &runtime::metrics::Metrics::new("x")).unwrap()
}
fn bare() -> Router {
    Router::new().route(
        "/v1/budgets/{budget}/submissions",
        post(async |axum::Json(b): axum::Json<Bare>| {
            (
                [("content-type", "application/json")],
                format!("{{\"status\":\"accepted\",\"n\":{}}}", b.allocation.len()),
            )
        }),
    )
}
async fn time(name: &str, app: Router, path: &str, body: String, n: usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let t = Instant::now();
        for _ in 0..n {
            let r = Request::post(path)
                .header("content-type", "application/json")
                .body(Body::from(body.clone()))
                .unwrap();
            let a = app.clone().oneshot(r).await.unwrap();
            let ok = a.status().is_success();
            let b = a.into_body().collect().await.unwrap().to_bytes();
            assert!(ok, "{:?}", b);
            std::hint::black_box(b);
        }
        best = best.min(t.elapsed().as_secs_f64() / n as f64);
    }
    println!("{name}: {:.2} us", best * 1e6);
    best
}
#[tokio::main]
async fn main() {
    if let Some(kind) = std::env::args().nth(1) {
        if kind == "batch" {
            let cats: usize = std::env::args().nth(2).unwrap().parse().unwrap();
            let items: Vec<String> = (0..1000).map(|n| body(n, cats)).collect();
            let t = time(
                "batch",
                app(),
                "/v1/budgets/taxes/submissions/batch",
                format!("[{}]", items.join(",")),
                300,
            )
            .await;
            println!("   {:.3} us an item", t * 1e3);
            return;
        }
        let routes = if kind == "bare" { bare() } else { app() };
        let listener = runtime::http::bind("127.0.0.1:8055".parse().unwrap()).unwrap();
        if kind == "bare" || kind == "noruntime" {
            axum::serve(listener, routes).await.unwrap();
            return;
        }
        let _g = (kind != "nolog").then(|| {
            runtime::telemetry::init(&runtime::telemetry::TelemetryConfig {
                format: runtime::telemetry::LogFormat::Json,
                filter: if kind == "warn" { "warn".into() } else { "info".into() },
            })
        });
        let m = runtime::metrics::Metrics::new("ingest");
        let cfg = runtime::http::HttpConfig::default();
        let r = runtime::http::router("ingest", routes, &m, &Default::default(), &cfg);
        runtime::http::serve(listener, r, &cfg, &m, runtime::shutdown::Shutdown::listen().token())
            .await
            .unwrap();
        return;
    }
    for cats in [1, 3, 10] {
        let b = time(
            &format!("bare, {cats} cats"),
            bare(),
            "/v1/budgets/taxes/submissions",
            body(1, cats),
            20_000,
        )
        .await;
        let one = time(
            &format!("one, {cats} cats"),
            app(),
            "/v1/budgets/taxes/submissions",
            body(1, cats),
            20_000,
        )
        .await;
        println!("   ratio in process {:.2}", b / one);
        let items: Vec<String> = (0..1000).map(|n| body(n, cats)).collect();
        let t = time(
            &format!("batch of 1000, {cats} cats"),
            app(),
            "/v1/budgets/taxes/submissions/batch",
            format!("[{}]", items.join(",")),
            100,
        )
        .await;
        println!("   {:.3} us an item", t * 1e3);
        let items: Vec<String> = (0..1000)
            .map(|n| {
                body(n, cats).replacen(
                    '{',
                    &format!("{{\"submission_id\":\"{}\",", uuid::Uuid::now_v7()),
                    1,
                )
            })
            .collect();
        let t = time(
            &format!("batch of 1000 with ids, {cats} cats"),
            app(),
            "/v1/budgets/taxes/submissions/batch",
            format!("[{}]", items.join(",")),
            100,
        )
        .await;
        println!("   {:.3} us an item", t * 1e3);
    }
}
