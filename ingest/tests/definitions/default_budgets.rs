//! The budgets that every deployment starts with.

use runtime::metrics::Metrics;
use schemas::PersonSaltState;
use tokio_util::sync::CancellationToken;

use crate::support::Harness;
use crate::{BODY, FUTURE, NEW, delete, put};

async fn define_default_budgets(harness: &Harness, has_records: bool, stop: CancellationToken) {
    define_measured(harness, has_records, &Metrics::new("test"), stop).await;
}

async fn define_measured(
    harness: &Harness,
    has_records: bool,
    metrics: &Metrics,
    stop: CancellationToken,
) {
    let read = move || async move { Ok(has_records) };
    let definitions = harness.definitions.clone();
    ingest::define_default_budgets(definitions, read, metrics, stop).unwrap().await;
}

/// Whether the metric says that definitions are lost.
fn says_lost(metrics: &Metrics) -> bool {
    let text = String::from_utf8(metrics.render()).unwrap();
    let value =
        text.lines().find_map(|line| line.strip_prefix("allocator_ingest_definitions_lost "));
    value.unwrap() == "1"
}

#[tokio::test(start_paused = true)]
async fn no_default_budget_is_defined_anew_over_a_log_with_records() {
    let harness = Harness::new();
    let clear = || *harness.definitions.catalog.lock() = Default::default();
    let stop = CancellationToken::new();
    let hour = std::time::Duration::from_secs(3_600);
    clear();
    let metrics = Metrics::new("test");
    let lost = define_measured(&harness, true, &metrics, stop.clone());
    let ended = tokio::time::timeout(hour, lost).await;
    assert!(ended.is_err() && harness.definitions.catalog.lock().is_empty());
    assert!(says_lost(&metrics));

    // An operator defines another budget: the default one is still not defined without being asked for.
    let metrics = Metrics::new("test");
    let lost = define_measured(&harness, true, &metrics, stop.clone());
    let taxes = schemas::default_budgets().unwrap().remove(0);
    let operator = async {
        tokio::time::sleep(hour).await;
        assert!(says_lost(&metrics));
        let id = schemas::BudgetId::parse("new").unwrap();
        harness.definitions.put(schemas::Budget { id, ..taxes.clone() });
    };
    tokio::join!(operator, lost);
    assert!(harness.definitions.get("taxes").is_none());
    assert!(!says_lost(&metrics));

    // With a known definition, one that is missing is defined as always.
    define_default_budgets(&harness, true, stop.clone()).await;
    assert!(harness.definitions.get("taxes").is_some());

    // Another process defines it on a fresh deployment, and accepts submissions at once.
    clear();
    let definitions = harness.definitions.clone();
    let wanted = taxes.clone();
    let read = move || {
        definitions.put(wanted.clone());
        async { Ok(true) }
    };
    let metrics = Metrics::new("test");
    ingest::define_default_budgets(harness.definitions.clone(), read, &metrics, stop)
        .unwrap()
        .await;
    assert_eq!(harness.definitions.get("taxes").as_deref(), Some(&taxes));
    assert!(!says_lost(&metrics));
}

#[tokio::test]
async fn only_missing_default_budgets_are_defined() {
    let harness = Harness::new();
    harness.edit_budget(|budget| budget.name = "Ours".into());
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop.clone()).await;
    assert_eq!(harness.definitions.get("taxes").unwrap().name, "Ours");
    *harness.definitions.catalog.lock() = Default::default();
    define_default_budgets(&harness, false, stop).await;
    let taxes = harness.definitions.get("taxes").unwrap();
    assert_eq!((taxes.revision, taxes.categories.len()), (1, 10));
}

#[tokio::test]
async fn an_unreadable_default_budget_is_not_defined_again() {
    let harness = Harness::new();
    *harness.definitions.catalog.lock() = Default::default();
    let taxes = FUTURE.replace("parks", "taxes").replace(r#""name":"Trees""#, r#""name":7"#);
    harness.definitions.put_stored(&taxes);
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    assert!(harness.definitions.get("taxes").is_none());
}

#[tokio::test]
async fn a_deleted_default_budget_stays_deleted() {
    let harness = Harness::new();
    assert_eq!(delete(&harness, "/v1/budgets/taxes", &[]).await.status.as_u16(), 204);
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    assert!(harness.definitions.get("taxes").is_none());
}

#[tokio::test]
async fn each_new_budget_has_a_salt_of_its_own_and_keeps_it() {
    let harness = Harness::new();
    *harness.definitions.catalog.lock() = Default::default();
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    let secret = |id: &str| harness.definitions.get(id).unwrap().person_salt.clone();
    let created = put(&harness, NEW, &[], BODY).await;
    assert_eq!(created.status.as_u16(), 201);
    let body = String::from_utf8(created.body).unwrap();
    assert!(!body.contains("salt") && !body.contains("requires"), "{body}");
    let (first, default) = (secret("new"), secret("taxes"));
    for secret in [&first, &default] {
        assert!(matches!(secret, PersonSaltState::Salted(_)), "{secret:?}");
    }
    assert_ne!(first, default);
    put(&harness, NEW, &[], &BODY.replacen("\"name\":\"", "\"name\":\"Another ", 1)).await;
    assert_eq!((harness.definitions.get("new").unwrap().revision, secret("new")), (2, first));
}
