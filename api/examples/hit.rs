//! temp
#![allow(missing_docs, clippy::unwrap_used)]
#[path = "../tests/reads/fakes.rs"]
mod fakes;
#[path = "../tests/reads/world.rs"]
mod world;
use axum::{Router, body::Body, routing::get};
use http::Request;
use http_body_util::BodyExt;
use std::time::Instant;
use storage::cache::CacheUpdate;
use tower::ServiceExt;
async fn time(name: &str, r: &Router) {
    let n = 300_000;
    for _ in 0..2 {
        let t = Instant::now();
        for _ in 0..n {
            let q = Request::builder()
                .uri("/v1/budgets/town/aggregate")
                .header("host", "x")
                .header("accept", "*/*")
                .header("user-agent", "x")
                .body(Body::empty())
                .unwrap();
            let a = r.clone().oneshot(q).await.unwrap();
            assert_eq!(a.status(), 200);
            let _ = a.into_body().collect().await.unwrap();
        }
        println!("{name}: {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    }
}
#[tokio::main]
async fn main() {
    let w = world::World::new().settled().await;
    w.commit("town", &[(0, [2500, 7500])]);
    w.cache.tell(CacheUpdate::Resumed);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let g = w.aggregate("town").await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let g2 = w.aggregate("town").await;
    println!("{} {}", g.tier(), g2.tier());
    let body = bytes::Bytes::from(g.text);
    let bare: Router = Router::new().route(
        "/v1/budgets/{budget}/aggregate",
        get(async move || ([("content-type", "application/json")], body.clone())),
    );
    time("bare axum", &bare).await;
    time("routes only", &w.routes).await;
    time("whole stack", &w.router).await;
    if let Some(addr) = std::env::args().nth(1) {
        let cfg = runtime::http::HttpConfig::default();
        let m = runtime::metrics::Metrics::new("x");
        let l = runtime::http::bind(addr.parse().unwrap()).unwrap();
        let l2 = runtime::http::bind("127.0.0.1:18099".parse().unwrap()).unwrap();
        tokio::spawn(async move { axum::serve(l2, bare).await.unwrap() });
        runtime::http::serve(l, w.router.clone(), &cfg, &m, Default::default()).await.unwrap();
    }
}
