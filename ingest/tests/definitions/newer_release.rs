//! Definitions that a newer release wrote.

use http::Method;

use crate::support::Harness;
use crate::{BODY, FUTURE, PARKS, PARKS_SUBMISSIONS, TREES, delete, put};

#[tokio::test]
async fn a_definition_of_a_newer_release_takes_submissions_and_is_not_changed() {
    let harness = Harness::new();
    harness.definitions.put_stored(FUTURE);
    let before = harness.definitions.get("parks");
    assert_eq!(harness.post(PARKS_SUBMISSIONS, TREES).await.status.as_u16(), 202);
    assert_eq!(harness.log.records.lock().len(), 1);
    let response = put(&harness, PARKS, &[], BODY).await;
    assert!(response.problem(503, "unavailable").contains("newer release"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(harness.definitions.get("parks"), before);
}

#[tokio::test]
async fn a_definition_of_a_newer_release_is_not_frozen() {
    let harness = Harness::new();
    harness.definitions.put_stored(&FUTURE.replace(r#""frozen":true"#, r#""frozen":false"#));
    let response = harness.post(PARKS_SUBMISSIONS, TREES).await;
    let detail = response.problem(503, "unavailable");
    assert!(
        detail.contains("newer release") && detail.contains("nothing was accepted"),
        "{detail}"
    );
    assert!(!harness.definitions.get("parks").unwrap().frozen);
    assert_eq!(harness.log.records.lock().len(), 0);
}

#[tokio::test]
async fn an_unknown_identity_rule_and_an_unreadable_definition_take_no_submissions() {
    let harness = Harness::new();
    for (from, to) in [
        (r#""identity":"required""#, r#""identity":"passport""#),
        (r#""revision":7"#, r#""requires":["weights"],"revision":7"#),
    ] {
        harness.definitions.put_stored(&FUTURE.replace(from, to));
        for body in [TREES, r#"{"allocation":{"trees":100}}"#] {
            let response = harness.post(PARKS_SUBMISSIONS, body).await;
            let detail = response.problem(503, "unavailable");
            assert!(detail.contains("newer release"), "{detail}");
        }
        let path = format!("{PARKS_SUBMISSIONS}/p-1");
        harness.send(Method::DELETE, &path, &[], String::new()).await.problem(503, "unavailable");
        put(&harness, PARKS, &[], BODY).await.problem(503, "unavailable");
    }
    assert_eq!(harness.log.records.lock().len(), 0);
}

#[tokio::test]
async fn a_definition_of_a_newer_release_is_not_deleted() {
    let harness = Harness::new();
    harness.definitions.put_stored(&FUTURE.replace(r#""frozen":true"#, r#""frozen":false"#));
    delete(&harness, PARKS, &[]).await.problem(503, "unavailable");
    assert!(harness.definitions.get("parks").is_some());
}
