//! Forgetting the persons of a budget: what it requires, and what persons are answered afterwards.

use http::Method;
use schemas::*;
use serde_json::Value;

use crate::admin::{ADMIN, problem_slug, send_as, server_with_administrators};
use crate::test_server::*;

const FORGET: &str = "/v1/admin/budgets/town/forget";
const PERSON: &str = "/v1/budgets/town/submissions/p-1";
const CLOSED: ClosingFence = ClosingFence { revision: 5, state: ClosingState::Closed };

fn define(server: &TestServer, closing: Option<ClosingFence>, person_salt: PersonSaltState) {
    let closes_at = Some("2026-01-02T00:00:00Z".parse().unwrap());
    server.definitions.put(Budget { closes_at, closing, person_salt, ..budget("town") });
}

/// Commits totals that have folded a close marker of each of these revisions; none for 0.
fn commit(server: &TestServer, revisions: [u64; 3]) {
    let closed = |revision: u64| match revision {
        0 => Closing::NONE,
        _ => Closing::new(revision, vec![Offset(7)]).unwrap(),
    };
    let totals = revisions.map(|revision| {
        let closing = closed(revision);
        Some(BudgetTotals { position: Position(8), closing, ..BudgetTotals::default() })
    });
    server.store.put("town", totals.to_vec());
}

async fn forget(server: &TestServer) -> (u16, Value) {
    let got = send_as(server, Method::POST.as_str(), FORGET, ADMIN).await;
    (got.status.as_u16(), got.json())
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_forgotten_only_with_final_results_and_a_secret_of_its_own() {
    let server = server_with_administrators(&[]);
    let salted = budget("town").person_salt;
    let reopening = ClosingFence { state: ClosingState::Reopening, ..CLOSED };
    for (closing, secret, revisions, reason) in [
        (None, salted.clone(), [5, 5, 5], "is not closed"),
        (Some(reopening), salted.clone(), [5, 5, 5], "is not closed"),
        (Some(CLOSED), PersonSaltState::DeploymentOnly, [5, 5, 5], "an earlier release created"),
        (Some(CLOSED), salted.clone(), [5, 0, 5], "not every partition"),
        // Closed before, reopened, and closed again.
        (Some(CLOSED), salted.clone(), [5, 4, 5], "not every partition"),
    ] {
        define(&server, closing, secret);
        commit(&server, revisions);
        let (status, problem) = forget(&server).await;
        assert_eq!((status, &problem["type"]), (409, &"/problems/wrong-state".into()));
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
        assert_ne!(server.get(PERSON).await.status, 410);
    }
    let unknown = send_as(&server, "POST", "/v1/admin/budgets/nowhere/forget", ADMIN).await;
    assert_eq!((unknown.status.as_u16(), problem_slug(&unknown).as_str()), (404, "not-found"));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_found_in_a_forgotten_budget_and_its_results_stay() {
    let server = server_with_administrators(&[]);
    define(&server, Some(CLOSED), budget("town").person_salt);
    commit(&server, [5, 5, 5]);
    let key = server.key("town", &PersonId::parse("p-1").unwrap());
    let partition = partition_for(&key, crate::fakes::partitions());
    server.store.put_row(partition, row(key, "town", 3, &[4_000, 6_000]));
    assert_eq!(server.get(PERSON).await.status, 200);
    let results = server.get("/v1/budgets/town/aggregate").await;

    let (status, forgotten) = forget(&server).await;
    assert_eq!((status, &forgotten["is_erased"]), (200, &true.into()), "{forgotten}");
    assert_eq!(forget(&server).await, (200, forgotten.clone()), "repeated");
    for path in [PERSON, "/v1/budgets/town/submissions/me", "/v1/budgets/town/submissions/nobody"] {
        for got in [server.get(path).await, send_as(&server, "GET", path, ADMIN).await] {
            assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (410, "forgotten"));
        }
    }
    let page = server.get("/budgets/town/mine").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("has been forgotten"), "{}", page.text);
    let json = server.get_with("/budgets/town/mine", &[("accept", "application/json")]).await;
    assert_eq!((json.status.as_u16(), problem_slug(&json).as_str()), (410, "forgotten"));
    assert_eq!(
        server.get("/v1/budgets/town/aggregate").await.json()["people"],
        results.json()["people"]
    );
    let definition = server.get("/v1/budgets/town").await;
    assert_eq!(definition.json()["forgotten_at"], forgotten["forgotten_at"]);
    let list = server.get("/v1/budgets").await;
    for shown in [definition.text, list.text] {
        assert!(!shown.contains("salt") && !shown.contains("09090909"), "{shown}");
    }
}
