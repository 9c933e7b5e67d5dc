//! Golden files of records that a newer release wrote: they are read as far as possible, and never guessed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use schemas::job::{Job, expired};
use schemas::*;

const DEFINITION: &str = include_str!("golden/future_definition.json");
const REGISTRY: &str = include_str!("golden/future_registry.json");
const JOB: &str = include_str!("golden/future_job.json");
const REPORT: &str = include_str!("golden/future_report.json");

fn definition(from: &str, to: &str) -> StoredBudget {
    assert!(DEFINITION.contains(from), "{from}");
    StoredBudget::parse(DEFINITION.replace(from, to).as_bytes())
}

#[test]
fn a_future_definition_is_read_as_far_as_it_is_understood() {
    let StoredBudget::PartlyUnderstood { budget, members } =
        StoredBudget::parse(DEFINITION.as_bytes())
    else {
        panic!("unknown members must be noticed");
    };
    assert_eq!(members, ["/categories/0/icon", "/changed_by", "/languages"]);
    assert_eq!((budget.id.as_str(), budget.revision, budget.frozen), ("parks", 7, true));
    assert_eq!(budget.categories.len(), 2);
}

#[test]
fn an_unknown_rule_is_not_taken_for_a_known_one() {
    let read = |from, to| match definition(from, to) {
        StoredBudget::PartlyUnderstood { budget, members } => (budget, members),
        other => panic!("{other:?}"),
    };
    let (budget, members) = read(r#""identity":"required""#, r#""identity":"passport""#);
    assert_eq!(budget.identity, IdentityRule::Unrecognized);
    assert!(members.contains(&"/identity".to_owned()), "{members:?}");
    let (budget, members) = read(r#""results":"live""#, r#""results":"after_recount""#);
    assert_eq!(budget.results, ResultsVisibility::Unrecognized);
    assert!(members.contains(&"/results".to_owned()), "{members:?}");
}

#[test]
fn an_unknown_order_is_noticed_and_an_unknown_part_of_a_translation_too() {
    let presented = include_str!("golden/presented_definition.json");
    for (from, to, member) in [
        (r#""order":"shuffled""#, r#""order":"by_age""#, "/order"),
        (r#""pt-BR":{}"#, r#""pt-BR":{"title":"x"}"#, "/translations/pt-BR/title"),
        (r#""percent":{"#, r#""year":2025,"percent":{"#, "/reference/year"),
    ] {
        assert!(presented.contains(from), "{from}");
        let read = StoredBudget::parse(presented.replace(from, to).as_bytes());
        let StoredBudget::PartlyUnderstood { budget, members } = read else { panic!("{read:?}") };
        assert_eq!(members, [member]);
        assert_eq!(budget.presentation.language.as_deref(), Some("en"));
    }
}

#[test]
fn a_definition_that_only_a_newer_release_can_use_is_unreadable_and_keeps_its_revision() {
    for (from, to) in [
        (r#""identity":"required""#, r#""identity":{"code":{"length":8}}"#),
        (r#""revision":7"#, r#""requires":["weights"],"revision":7"#),
        (r#""revision":7"#, r#""requires":["person_salt","weights"],"revision":7"#),
        (r#","icon":"tree"},{"id":"benches","name":"Benches"}"#, "}"),
        (r#""id":"benches""#, r#""id":"trees""#),
        (r#""minimum_people":1"#, r#""minimum_people":"few""#),
    ] {
        let read = definition(from, to);
        assert!(
            matches!(read, StoredBudget::Unreadable { revision: Some(7), .. }),
            "{to}: {read:?}"
        );
    }
    let damaged = StoredBudget::parse(b"\x00");
    assert!(matches!(damaged, StoredBudget::Unreadable { revision: None, .. }), "{damaged:?}");
    assert_eq!(StoredBudget::id(DEFINITION.as_bytes()).unwrap().as_str(), "parks");
}

#[test]
fn definitions_of_this_and_earlier_releases_are_understood_even_with_names_that_are_no_longer_allowed()
 {
    let budget =
        r#"{"id":"b","name":"  ","categories":[{"id":"x","name":"X\t"},{"id":"y","name":""}]}"#;
    for json in [budget, &serde_json::to_string(&default_budgets().unwrap()[0]).unwrap()] {
        let read = StoredBudget::parse(json.as_bytes());
        assert!(matches!(read, StoredBudget::Understood(_)), "{read:?}");
    }
}

#[test]
fn a_future_registry_is_followed_and_an_unknown_mode_is_unreadable() {
    let registry = GenerationRegistry::from_json(REGISTRY).unwrap();
    assert_eq!(registry.active.generation, Generation(2));
    assert_eq!(registry.not_understood, ["/current/verified_at_ms", "/paused_by"]);
    for mode in [r#""requires":["paused"],"retired":[]"#, r#""retired":{"all":true}"#] {
        let unknown = REGISTRY.replace(r#""retired":[]"#, mode);
        assert_eq!(GenerationRegistry::from_json(&unknown), None, "{mode}");
    }
    let building = r#"{"record":{"generation":3,"log":{"number":3,"topic":"s-3","partitions":24}},"dry_run":false,"begun_at_ms":5,"job":null,"seal":"open"}"#;
    let building = REGISTRY.replace(r#""building":null"#, &format!(r#""building":{building}"#));
    assert!(GenerationRegistry::from_json(&building).is_some());
    let unknown_seal = building.replace(r#""seal":"open""#, r#""seal":"draining""#);
    assert_eq!(GenerationRegistry::from_json(&unknown_seal), None);
}

#[test]
fn a_future_job_is_shown_but_its_unknown_argument_is_noticed() {
    let job = Job::from_json(JOB).unwrap();
    assert_eq!(job.kind.name(), "rebuild");
    assert_eq!(job.not_understood, ["/max_records_per_second"]);
    assert!(!job.is_understood());
    for unknown in [
        JOB.replace(r#""priority":"high""#, r#""priority":"urgent""#),
        JOB.replace(r#""kind":"rebuild""#, r#""kind":"recount""#),
        JOB.replace(r#""state":"queued""#, r#""state":"paused""#),
    ] {
        assert_eq!(Job::from_json(&unknown), None, "{unknown}");
    }
}

#[test]
fn ended_jobs_of_a_newer_release_are_not_deleted() {
    let ended = JOB
        .replace(r#""state":"queued","not_before_ms":0"#, r#""state":"cancelled","ended_at_ms":1"#);
    let job = Job::from_json(&ended).unwrap();
    let jobs = vec![job; job::MAX_KEPT_ENDED_JOBS + 5];
    assert_eq!(expired(&jobs), Vec::<&Job>::new());
}

#[test]
fn a_future_report_is_read_without_its_unknown_members() {
    let report = PartitionReport::from_json(REPORT).unwrap();
    assert_eq!(report.log_end, Position(3));
    assert_eq!(report.comparison.unwrap().with, Generation(1));
}
