//! Results that move in steps: no reader is shown a change before as many people as the step have changed.

use jiff::Timestamp;
use schemas::*;

use crate::fakes::Mode;
use crate::test_server::*;

const SHOWN: [(u32, [u16; 2]); 3] = [(0, [10_000, 0]), (0, [10_000, 0]), (1, [10_000, 0])];
/// The last one is the first person of their partition.
const PENDING: [(u32, [u16; 2]); 3] = [(0, [0, 10_000]), (1, [0, 10_000]), (2, [0, 10_000])];

/// A server with a budget of a large step, of which three people are shown and three more are pending.
fn server() -> TestServer {
    let server = TestServer::new();
    server.definitions.put(Budget { publish_step: 1_000, revision: 2, ..budget("town") });
    let totals = pending_totals(&SHOWN, &PENDING);
    server.cache.put("town", Some(combined(&totals)));
    server.store.put("town", totals);
    server
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_shows_no_pending_person_whichever_tier_answers() {
    for tier in ["redis", "summary"] {
        let server = server();
        if tier == "summary" {
            server.cache.put("town", None);
        }
        let got = server.get("/v1/budgets/town/aggregate?include=distribution").await;
        assert_eq!((got.people(), got.tier()), (3, tier));
        let body = got.json();
        assert_eq!(body["categories"][0]["average_percent"], 100.0);
        assert_eq!(body["categories"][1]["distribution"][100], 0);
        let text = server.get("/v1/aggregates?budget=town").await.json();
        assert_eq!(text["aggregates"][0]["people"], 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_submission_is_counted_for_its_receipt_although_no_number_has_moved() {
    let server = server();
    // Each partition's last record is pending.
    for receipt in ["0.2", "1.1", "2.0"] {
        let got = server.get(&format!("/v1/budgets/town/aggregate?at_least={receipt}")).await;
        assert_eq!(got.people(), 3, "{receipt}");
    }
    let page = server.get("/budgets/town/results").await.text;
    assert!(page.contains("id=\"steps\"") && page.contains(">People: 3<"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_history_shows_no_pending_person_at_its_newest_instants() {
    const STEP: HistoryStep = HistoryStep::Day;
    let server = server();
    let mut totals = pending_totals(&SHOWN, &PENDING);
    let today = STEP.last_instant(runtime::clock::now_ms());
    let updated_in = HistoryInstant(today.0 - 5);
    for totals in totals.iter_mut().flatten() {
        totals.updated_at_ms = updated_in.at_ms(STEP) + 1;
    }
    server.store.put("town", totals);
    let body = server.get("/v1/budgets/town/history?step=day").await.json();
    let points = body["points"].as_array().unwrap();
    assert!(points.len() >= 4, "{body}");
    for point in points {
        assert_eq!(
            (&point["people"], &point["average_percent"]["health"]),
            (&3.into(), &100.0.into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_move_in_steps_are_never_recounted_and_others_are() {
    let server = server();
    server
        .store
        .put_row(PartitionId(0), row(PersonKey::from_bytes([1; 16]), "park", 4, &[10_000, 0]));
    for budget in ["town", "park"] {
        server.cache.put(budget, None);
    }
    server.store.totals_switch.set(Mode::Fails);
    let got = server.aggregate("town").await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "1"));
    assert!(got.text.contains("move in steps"), "{}", got.text);
    assert_eq!(server.aggregate("park").await.tier(), "recount");
    // What memory has is still served.
    server.store.totals_switch.set(Mode::Works);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(server.aggregate("town").await.people(), 3);
    server.store.totals_switch.set(Mode::Fails);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (3, "stale"));
}

#[tokio::test(start_paused = true)]
async fn closing_shows_everything() {
    let server = server();
    let closes_at = Some(Timestamp::now());
    server.definitions.put(Budget {
        publish_step: 1_000,
        closes_at,
        revision: 3,
        ..budget("town")
    });
    let mut totals = pending_totals(&SHOWN, &PENDING);
    for totals in totals.iter_mut().flatten() {
        let marker = Marker { kind: MarkerKind::Close, revision: 9 };
        totals.closing.fold(marker, Offset(totals.position.0));
        totals.position.0 += 1;
        totals.show_all();
    }
    server.cache.put("town", Some(combined(&totals)));
    server.store.put("town", totals);
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), &got.json()["final"]), (6, &true.into()));
    assert!(!server.get("/budgets/town/results").await.text.contains("id=\"steps\""));
}
