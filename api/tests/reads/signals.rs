//! Signals of submissions, as administrators see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use runtime::clock::now_ms;
use schemas::*;
use serde_json::{Value, json};

use crate::admin::{OPERATOR, VIEWER, problem_slug, send_as, server_with_administrators};
use crate::fakes::{Mode, id};
use crate::test_server::TestServer;

const SIGNALS: &str = "/v1/admin/budgets/taxes/signals";

/// Creates a server with signals of seven people of one network and two others, all of the last hour.
fn server() -> TestServer {
    let server = server_with_administrators(&[]);
    let at = now_ms() - 1_000;
    let signal = |person: u8, network: Option<u64>, ballot: u64| Signal {
        budget: id("taxes"),
        person: PersonKey::from_bytes([person; 16]),
        accepted_at_ms: at,
        action: SignalAction::Allocate(BallotDigest(ballot)),
        origin: SignalOrigin {
            network: network.map(NetworkDigest),
            agent: Some(AgentDigest(9)),
            identity: IdentityLevel::Code,
        },
    };
    let mut signals: Vec<Signal> = (0..7).map(|n| signal(n, Some(0xabc), 5)).collect();
    signals.push(signal(7, Some(1), 6));
    signals.push(signal(8, None, 7));
    signals.push(Signal { budget: id("town"), ..signal(9, Some(2), 5) });
    *server.signals.signals.lock() = signals;
    server
}

async fn get_json(server: &TestServer, path: &str) -> Value {
    let got = send_as(server, "GET", path, VIEWER).await;
    assert_eq!(got.status, 200, "{}", got.text);
    got.json()
}

#[tokio::test(start_paused = true)]
async fn signals_show_the_largest_network_and_the_ballot_of_most_people() {
    let server = server();
    let all = get_json(&server, SIGNALS).await;
    assert_eq!(
        (&all["budget"], &all["people"], &all["submissions"]),
        (&json!("taxes"), &json!(9), &json!(9))
    );
    assert_eq!(all["without_network"], 1);
    let network = &all["networks"][0];
    assert_eq!(network["network"], "0000000000000abc");
    assert_eq!(
        (&network["people"], &network["ballots"], &network["agents"]),
        (&json!(7), &json!(1), &json!(1))
    );
    assert_eq!(network["share_percent"], 77.78);
    assert_eq!(network["day"].as_str().unwrap(), &network["first_at"].as_str().unwrap()[..10]);
    let ballot = &all["ballots"][0];
    assert_eq!(
        (&ballot["ballot"], &ballot["people"], &ballot["networks"]),
        (&json!("0000000000000005"), &json!(7), &json!(1))
    );
    assert_eq!(all["levels"], json!([{"level": "code", "people": 9, "submissions": 9}]));
    let hours = all["new_people"].as_array().unwrap();
    assert_eq!(
        (hours.len(), &hours[23]["people"], &hours[0]["people"]),
        (24, &json!(9), &json!(0))
    );
    assert_eq!(all["truncated"], json!({"people": false, "networks": false, "ballots": false}));
    let one = get_json(&server, &format!("{SIGNALS}?hours=1")).await;
    assert_eq!(one["new_people"].as_array().unwrap().len(), 1);
    assert!(!all.to_string().contains("0707070707"), "no person key is shown");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_budget_is_404_and_wrong_hours_are_400() {
    let server = server();
    let got = send_as(&server, "GET", "/v1/admin/budgets/nowhere/signals", VIEWER).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    for hours in ["0", "121", "-1", "x", "", "24.5", "99999999999999999999"] {
        let got = send_as(&server, "GET", &format!("{SIGNALS}?hours={hours}"), VIEWER).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
        assert_eq!(got.json()["errors"][0]["pointer"], "hours");
    }
    assert_eq!(server.signals.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_one_read_whose_result_is_used_for_ten_seconds() {
    let server = Arc::new(server());
    server.signals.switch.set(Mode::Hangs);
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { send_as(&server, "GET", SIGNALS, OPERATOR).await.status })
        })
        .collect();
    while server.signals.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    server.signals.switch.set(Mode::Works);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    get_json(&server, SIGNALS).await;
    assert_eq!(server.signals.reads.load(Ordering::SeqCst), 1);
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    get_json(&server, SIGNALS).await;
    assert_eq!(server.signals.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_of_signals_that_fails_or_hangs_is_503_and_a_failure_is_not_remembered() {
    let server = server();
    for mode in [Mode::Fails, Mode::Hangs] {
        server.signals.switch.set(mode);
        let got = send_as(&server, "GET", SIGNALS, VIEWER).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (503, "unavailable"));
        assert_eq!(got.header("retry-after"), "1");
    }
    server.signals.switch.set(Mode::Works);
    get_json(&server, SIGNALS).await;
}
