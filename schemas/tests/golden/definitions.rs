//! Definitions of budgets in the control topic.

use schemas::*;

use crate::persons;

const EARLIER_DEFINITION: &str = r#"{"id":"parks","name":"Parks","categories":[{"id":"trees","name":"Trees"},{"id":"benches","name":"Benches"}],"results":"live","minimum_people":1,"identity":"required","revision":7,"frozen":true}"#;

/// A definition with every member of its presentation.
const PRESENTED_DEFINITION: &str = include_str!("presented_definition.json");

#[test]
fn a_definition_of_an_earlier_release_is_read_and_written_without_a_salt() {
    let StoredBudget::Understood(budget) = StoredBudget::parse(EARLIER_DEFINITION.as_bytes())
    else {
        panic!("not understood");
    };
    assert_eq!(budget.person_salt, PersonSaltState::DeploymentOnly);
    assert_eq!(StoredBudget::document(&budget).unwrap(), EARLIER_DEFINITION);
}

#[test]
fn a_definition_keeps_its_salt_in_its_stored_form_only() {
    let digits = "02".repeat(PersonSalt::BYTES);
    let salted = EARLIER_DEFINITION.replace(
        r#""frozen":true"#,
        &format!(r#""frozen":true,"person_salt":"{digits}","requires":["person_salt"]"#),
    );
    let StoredBudget::Understood(budget) = StoredBudget::parse(salted.as_bytes()) else {
        panic!("not understood");
    };
    assert_eq!(budget.person_salt, persons::salted(2));
    assert_eq!(StoredBudget::document(&budget).unwrap(), salted);
    for shown in [serde_json::to_string(&budget).unwrap(), format!("{budget:?}")] {
        assert!(!shown.contains("0202") && !shown.contains("2, 2"), "{shown}");
    }
    assert_eq!(serde_json::to_string(&budget).unwrap(), EARLIER_DEFINITION);

    let at = "2027-01-02T03:04:05Z".parse().unwrap();
    let forgotten = Budget { person_salt: PersonSaltState::Forgotten { at }, ..budget };
    let document = StoredBudget::document(&forgotten).unwrap();
    let public = r#""frozen":true,"forgotten_at":"2027-01-02T03:04:05Z""#;
    assert_eq!(
        document,
        EARLIER_DEFINITION
            .replace(r#""frozen":true"#, &format!(r#"{public},"requires":["person_salt"]"#))
    );
    assert_eq!(
        serde_json::to_string(&forgotten).unwrap(),
        EARLIER_DEFINITION.replace(r#""frozen":true"#, public)
    );
    assert_eq!(StoredBudget::parse(document.as_bytes()), StoredBudget::Understood(forgotten));

    // Neither damage nor a half of it is taken for a budget without a salt.
    let both =
        document.replace(r#""requires""#, &format!(r#""person_salt":"{digits}","requires""#));
    for damaged in [salted.replace("02\"", "0x\""), salted.replace("02\"", "\""), both] {
        let read = StoredBudget::parse(damaged.as_bytes());
        assert!(matches!(&read, StoredBudget::Unreadable { revision: Some(7), .. }), "{read:?}");
        assert!(!format!("{read:?}").contains("0202"), "{read:?}");
    }
}

#[test]
fn a_definition_with_a_presentation_keeps_its_bytes() {
    let StoredBudget::Understood(budget) = StoredBudget::parse(PRESENTED_DEFINITION.as_bytes())
    else {
        panic!("not understood");
    };
    assert_eq!(serde_json::to_string(&budget).unwrap(), PRESENTED_DEFINITION);
    assert_eq!(budget.faults(), []);
    let reference = budget.presentation.reference.unwrap();
    let shares: Vec<u16> = reference.percent.values().map(|share| share.basis_points()).collect();
    assert_eq!(shares, [3_335, 6_665]);
}

#[test]
fn a_definition_without_a_presentation_keeps_the_bytes_of_earlier_releases() {
    let StoredBudget::Understood(budget) = StoredBudget::parse(EARLIER_DEFINITION.as_bytes())
    else {
        panic!("not understood");
    };
    assert_eq!(*budget.presentation, Presentation::default());
    assert_eq!(serde_json::to_string(&budget).unwrap(), EARLIER_DEFINITION);
}

#[test]
fn a_cap_on_people_is_stored_only_if_there_is_one_and_freezes_nothing() {
    let with_cap = EARLIER_DEFINITION.replace(r#""identity""#, r#""max_people":5000,"identity""#);
    let read = |json: &str| match StoredBudget::parse(json.as_bytes()) {
        StoredBudget::Understood(budget) => budget,
        other => panic!("{other:?}"),
    };
    let (without, capped) = (read(EARLIER_DEFINITION), read(&with_cap));
    assert_eq!((without.max_people, capped.max_people), (None, Some(5_000)));
    assert_eq!(StoredBudget::document(&without).unwrap(), EARLIER_DEFINITION);
    assert_eq!(StoredBudget::document(&capped).unwrap(), with_cap);
    assert!(without.keeps_frozen_rules(&capped) && capped.keeps_frozen_rules(&without));
}

#[test]
fn a_publish_step_is_stored_only_if_it_is_not_1_and_read_whatever_it_is() {
    let with = |step: u64| {
        EARLIER_DEFINITION.replace(r#""identity""#, &format!(r#""publish_step":{step},"identity""#))
    };
    let read = |json: &str| match StoredBudget::parse(json.as_bytes()) {
        StoredBudget::Understood(budget) => budget,
        other => panic!("{other:?}"),
    };
    let one = Budget { publish_step: 1, ..read(&with(10)) };
    assert_eq!(serde_json::to_string(&one).unwrap(), EARLIER_DEFINITION);
    assert_eq!(serde_json::to_string(&read(&with(10))).unwrap(), with(10));
    // Other releases may have other limits.
    for (step, nearest) in [(0, 1), (10, 10), (5_000, 1_000)] {
        assert_eq!(read(&with(step)).publish_step().get(), nearest);
        assert_eq!(read(&with(step)).faults().len(), usize::from(step != 10));
    }
    assert!(!read(EARLIER_DEFINITION).keeps_frozen_rules(&read(&with(10))));
}

#[test]
fn identity_rules_keep_their_stored_names() {
    for (rule, name) in [
        (IdentityRule::Required, "required"),
        (IdentityRule::Optional, "optional"),
        (IdentityRule::Anonymous, "anonymous"),
        (IdentityRule::Code, "code"),
        (IdentityRule::Email, "email"),
        (IdentityRule::Token, "token"),
    ] {
        assert_eq!(serde_json::to_value(rule).unwrap(), name);
        assert_eq!(serde_json::from_value::<IdentityRule>(name.into()).unwrap(), rule);
    }
}
