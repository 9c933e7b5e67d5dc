//! What the gateway keeps: public reads for a second, and nothing of a person, in front of fake APIs that count
//! requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use e2e::gateway::Gateway;
use e2e::raw_http::Connection;
use e2e::scenario::{scenario, scenario_within};
use e2e::wait::eventually;
use parking_lot::Mutex;
use reqwest::Method;
use tokio::task::JoinSet;

/// What `api` answers to public reads.
const PUBLIC: &str = "public, max-age=0, s-maxage=1, stale-while-revalidate=5, stale-if-error=60";
const AGGREGATE: &str = "/v1/budgets/taxes/aggregate";
const READERS: usize = 2_000;
/// Requests for one answer that reach the APIs in any second.
const MAX_REQUESTS_PER_SECOND: u64 = 5;

/// An API whose totals grow all the time. Every answer has a serial number.
struct FakeApi {
    started: Instant,
    /// How far its totals are behind.
    lag: Duration,
    /// When results are shown.
    closes: Duration,
    requests_by_second: Mutex<HashMap<u64, u64>>,
    serial: Arc<AtomicU64>,
    fails: AtomicBool,
}

impl FakeApi {
    async fn serve(api: Arc<Self>) -> Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port().to_string();
        let router = Router::new().fallback(answer).with_state(api);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(port)
    }

    fn requests(&self) -> u64 {
        self.requests_by_second.lock().values().sum()
    }
}

async fn answer(State(api): State<Arc<FakeApi>>, request: Request) -> Response {
    let elapsed = api.started.elapsed();
    *api.requests_by_second.lock().entry(elapsed.as_secs()).or_default() += 1;
    if api.fails.load(Ordering::Relaxed) {
        // The connection closes without an answer.
        std::panic::resume_unwind(Box::new("unreachable"));
    }
    // A slow answer, so that many readers wait for it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let serial = api.serial.fetch_add(1, Ordering::Relaxed);
    let elapsed = api.started.elapsed();
    let people = match elapsed < api.closes {
        true => 0,
        false => elapsed.saturating_sub(api.lag).as_millis(),
    };
    let of_request = |name: &str| {
        let value = request.headers().get(name);
        value.map_or(String::new(), |text| text.to_str().unwrap_or("?").to_owned())
    };
    let headers = [
        ("cache-control", PUBLIC.to_owned()),
        ("content-type", "application/json".to_owned()),
        ("etag", format!("\"{people}\"")),
        ("vary", "accept-language, accept-encoding, consistency-token".to_owned()),
        ("x-serial", serial.to_string()),
        ("x-encoding", of_request("accept-encoding")),
        ("x-key", of_request("idempotency-key")),
        ("ratelimit", "\"general\";r=99;t=60".to_owned()),
        ("x-ratelimit-remaining", "99".to_owned()),
    ];
    (headers, format!("{{\"people\":{people}}}")).into_response()
}

struct Apis {
    apis: [Arc<FakeApi>; 2],
    gateway: Gateway,
}

impl Apis {
    /// Starts two APIs, the second behind the first, and a gateway in front of them.
    async fn start(closes: Duration) -> Result<Self> {
        let (started, serial) = (Instant::now(), Arc::<AtomicU64>::default());
        let api = |lag| {
            Arc::new(FakeApi {
                started,
                lag,
                closes,
                requests_by_second: Mutex::default(),
                serial: Arc::clone(&serial),
                fails: AtomicBool::new(false),
            })
        };
        let apis = [api(Duration::ZERO), api(Duration::from_millis(1_500))];
        let [one, other] = [
            FakeApi::serve(Arc::clone(&apis[0])).await?,
            FakeApi::serve(Arc::clone(&apis[1])).await?,
        ];
        let gateway = Gateway::start_for([&one, &other, &one, &other]).await?;
        Ok(Self { apis, gateway })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<reqwest::Response> {
        let url = format!("{}{path}", self.gateway.url);
        let mut request = e2e::http_client::builder().build()?.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }

    /// The serial numbers of two answers to the same request, one right after the other.
    async fn twice(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<[String; 2]> {
        let mut serials = [String::new(), String::new()];
        for serial in &mut serials {
            let response = self.send(method.clone(), path, headers).await?;
            ensure!(response.status() == 200, "{path}: {}", response.status());
            *serial = header(&response, "x-serial");
        }
        Ok(serials)
    }
}

fn header(response: &reqwest::Response, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Reads again and again on one connection, and fails if a number goes back.
async fn read(url: String, until: Instant, number: usize) -> Result<u64> {
    // Readers begin at different moments of a second, and then read once a second.
    tokio::time::sleep(Duration::from_micros(500 * number as u64)).await;
    let mut connection = Connection::open(&url).await?;
    let (mut reads, mut last) = (0, 0);
    while Instant::now() < until {
        let (status, body) = connection.get(AGGREGATE, &[("accept-encoding", "gzip")]).await?;
        ensure!(status == 200, "status {status}: {body}");
        let people = serde_json::from_str::<serde_json::Value>(&body)?["people"].as_u64();
        let people = people.context("no people")?;
        ensure!(people >= last, "{people} people after {last}");
        (reads, last) = (reads + 1, people);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ensure!(last > 0, "the results were never shown");
    Ok(reads)
}

#[test]
fn two_thousand_readers_at_the_closing_instant_are_a_few_requests_and_see_no_number_go_back() {
    scenario_within(Duration::from_secs(180), async || {
        let closes = Duration::from_secs(6);
        let apis = Apis::start(closes).await?;
        let until = apis.apis[0].started + closes + Duration::from_secs(6);
        let mut readers = JoinSet::new();
        for number in 0..READERS {
            readers.spawn(read(apis.gateway.url.clone(), until, number));
        }
        let mut reads = 0;
        while let Some(reader) = readers.join_next().await {
            reads += reader??;
        }
        ensure!(reads > READERS as u64 * 3, "{reads} reads");
        let asked: Vec<u64> = apis.apis.iter().map(|api| api.requests()).collect();
        ensure!(asked.iter().filter(|requests| **requests > 0).count() == 1, "{asked:?}");
        for api in &apis.apis {
            for (second, requests) in api.requests_by_second.lock().iter() {
                let few = *requests <= MAX_REQUESTS_PER_SECOND;
                ensure!(few, "{requests} requests in second {second}, for {reads} reads");
            }
        }
        Ok(())
    });
}

#[test]
fn public_reads_are_kept_and_nothing_that_is_about_a_person_or_a_submission_is() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let none: &[(&str, &str)] = &[];
        for (path, headers) in [
            (AGGREGATE, none),
            ("/aggregate/", none),
            ("/v1/budgets/taxes/aggregate?include=distribution", none),
            ("/v1/aggregates?budget=taxes&budget=town", none),
            ("/v1/budgets", none),
            ("/v1/budgets/taxes", none),
            ("/", none),
            ("/budgets/taxes?lang=de", none),
            ("/budgets/taxes/results", &[("cookie", "allocator_person=a-1")]),
            ("/embed/budgets/taxes/results?lang=de&theme=dark", none),
            ("/v1/budgets/taxes/history?step=hour", none),
        ] {
            // The first two may be in different seconds.
            let path_is_kept = async || {
                let [one, other] = apis.twice(Method::GET, path, headers).await?;
                ensure!(one == other, "{path}: {one} and {other}");
                Ok(())
            };
            eventually("the answer is kept", Duration::from_secs(5), path_is_kept).await?;
        }
        let person = "/v1/budgets/taxes/submissions/p-1";
        for (method, path, headers) in [
            (Method::GET, AGGREGATE, &[("consistency-token", "3.7")][..]),
            (Method::GET, AGGREGATE, &[("prefer", "wait=1")]),
            (Method::GET, AGGREGATE, &[("authorization", "Bearer t")]),
            (Method::GET, "/v1/budgets/taxes/aggregate?at_least=3.7", none),
            (Method::GET, "/v1/budgets/taxes/aggregate/stream", none),
            (Method::GET, "/v1/budgets/taxes/export?format=csv", none),
            (Method::GET, person, none),
            (Method::DELETE, person, none),
            (Method::POST, "/v1/budgets/taxes/submissions", none),
            (Method::PUT, "/v1/budgets/taxes", none),
            (Method::POST, "/aggregate/", none),
            (Method::GET, "/v1/admin/jobs", none),
            (Method::GET, "/v1/admin/whoami", none),
            (Method::GET, "/budgets/taxes?c.health=40&do=check", none),
            (Method::GET, "/?c.health=40", none),
            (Method::GET, "/budgets/taxes/mine", &[("cookie", "allocator_person=a-1")]),
            (Method::GET, "/budgets/taxes/confirm?c.health=100", none),
            (Method::POST, "/budgets/taxes/submit", none),
            (Method::POST, "/v1/budgets/taxes/session", none),
            (Method::GET, "/v1/budgets/taxes/submissions/me", none),
        ] {
            let [one, other] = apis.twice(method.clone(), path, headers).await?;
            ensure!(one != other, "{method} {path} {headers:?} was kept");
        }
        Ok(())
    });
}

#[test]
fn answers_are_kept_by_encoding_and_pages_by_language() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let serials = async |path: &str, headers: &[[(&str, &str); 1]]| {
            let mut serials = Vec::new();
            for headers in headers {
                let response = apis.send(Method::GET, path, headers).await?;
                serials.push((header(&response, "x-serial"), header(&response, "x-encoding")));
            }
            anyhow::Ok(serials)
        };
        let encodings = ["gzip, deflate, br", "br;q=1.0, gzip;q=0.8", "gzip;q=0, br", "identity"]
            .map(|of| [("accept-encoding", of)]);
        eventually("one answer for each encoding", Duration::from_secs(5), async || {
            let seen = serials(AGGREGATE, &encodings).await?;
            ensure!(seen[0] == seen[1] && seen[2] == seen[3] && seen[0] != seen[2], "{seen:?}");
            ensure!(seen[0].1 == "gzip" && seen[2].1.is_empty(), "{seen:?}");
            Ok(())
        })
        .await?;
        let languages = ["de", "ar"].map(|language| [("accept-language", language)]);
        let [page, json] = ["/budgets/taxes", AGGREGATE];
        eventually("one page for each language", Duration::from_secs(5), async || {
            let (pages, answers) =
                (serials(page, &languages).await?, serials(json, &languages).await?);
            ensure!(pages[0] != pages[1] && answers[0] == answers[1], "{pages:?} {answers:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn the_forms_of_a_history_are_kept_apart() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let history = "/v1/budgets/taxes/history?step=hour";
        eventually("one answer for each form", Duration::from_secs(5), async || {
            let mut serials = Vec::new();
            for accept in ["text/csv", "application/json", "*/*", "text/csv"] {
                let response = apis.send(Method::GET, history, &[("accept", accept)]).await?;
                serials.push(header(&response, "x-serial"));
            }
            ensure!(serials[0] == serials[3] && serials[1] == serials[2], "{serials:?}");
            ensure!(serials[0] != serials[1], "{serials:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn while_no_api_answers_the_kept_answer_is_served_and_called_stale() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let first = apis.send(Method::GET, AGGREGATE, &[]).await?;
        ensure!(header(&first, "cache-status") == "allocator-gateway; fwd=miss", "{first:?}");
        for api in &apis.apis {
            api.fails.store(true, Ordering::Relaxed);
        }
        eventually("the cached response is stale", Duration::from_secs(10), async || {
            let stale = apis.send(Method::GET, AGGREGATE, &[]).await?;
            ensure!(stale.status() == 200, "{stale:?}");
            ensure!(header(&stale, "x-serial") == header(&first, "x-serial"), "{stale:?}");
            ensure!(header(&stale, "cache-status").contains("detail=stale"), "{stale:?}");
            Ok(())
        })
        .await?;
        let unread = apis.send(Method::GET, "/v1/budgets/town/aggregate", &[]).await?;
        ensure!(unread.status() == 503, "{unread:?}");
        Ok(())
    });
}

#[test]
fn a_condition_that_the_kept_answer_does_not_meet_is_a_problem() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let response = apis.send(Method::GET, AGGREGATE, &[("if-match", "\"other\"")]).await?;
        ensure!(response.status() == 412, "{response:?}");
        ensure!(header(&response, "content-type") == "application/problem+json", "{response:?}");
        let problem: serde_json::Value = response.json().await?;
        ensure!(problem["type"] == "/problems/precondition-failed", "{problem}");
        Ok(())
    });
}

#[test]
fn health_and_metrics_of_the_services_are_not_behind_the_gateway() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        for path in ["/metrics", "/readyz", "/livez"] {
            let response = apis.send(Method::GET, path, &[]).await?;
            ensure!(response.status() == 404, "{path}: {response:?}");
        }
        ensure!(apis.apis.iter().all(|api| api.requests() == 0), "a request was passed on");
        Ok(())
    });
}

#[test]
fn an_answer_has_the_request_id_of_its_own_request() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        for id in ["one", "two"] {
            let response = apis.send(Method::GET, AGGREGATE, &[("x-request-id", id)]).await?;
            ensure!(header(&response, "x-request-id") == id, "{response:?}");
        }
        Ok(())
    });
}

#[test]
fn an_answer_names_what_its_own_client_has_left_and_a_kept_one_names_nothing() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let names = ["ratelimit", "x-ratelimit-remaining"];
        let left = |response: &reqwest::Response| names.map(|name| header(response, name));
        let own = ["\"general\";r=99;t=60", "99"];
        let first = apis.send(Method::GET, AGGREGATE, &[]).await?;
        ensure!(left(&first) == own, "{first:?}");
        let kept = eventually("an answer is kept", Duration::from_secs(10), async || {
            let response = apis.send(Method::GET, AGGREGATE, &[]).await?;
            ensure!(header(&response, "cache-status").contains("hit"), "{response:?}");
            Ok(response)
        });
        let kept = kept.await?;
        ensure!(left(&kept) == ["", ""], "{kept:?}");
        // Never kept: what counts a person's own submission, and what has values in its address.
        for (path, headers) in [
            (AGGREGATE, &[("consistency-token", "1")][..]),
            ("/budgets/taxes?c.health=40&do=check", &[]),
        ] {
            for _ in 0..2 {
                let response = apis.send(Method::GET, path, headers).await?;
                ensure!(left(&response) == own, "{path}: {response:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_withdrawal_without_a_key_gets_one_that_is_known_as_the_gateways() {
    scenario(async || {
        let apis = Apis::start(Duration::ZERO).await?;
        let path = "/v1/budgets/taxes/submissions/p-1";
        let key = async |method: Method, headers: &[(&str, &str)]| -> Result<String> {
            Ok(header(&apis.send(method, path, headers).await?, "x-key"))
        };
        let [first, second] = [key(Method::DELETE, &[]).await?, key(Method::DELETE, &[]).await?];
        ensure!(first.starts_with("gateway-") && second.starts_with("gateway-"), "{first}");
        ensure!(first != second, "{first}");
        ensure!(key(Method::DELETE, &[("idempotency-key", "mine")]).await? == "mine");
        ensure!(key(Method::PUT, &[]).await?.is_empty(), "only a DELETE is repeated");
        Ok(())
    });
}
