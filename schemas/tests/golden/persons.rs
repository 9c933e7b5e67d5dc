//! Person keys and other values that are derived from the person secret.

use schemas::*;

/// What computes the keys of a budget's persons, under the deployment's secret of these tests.
fn persons_of(budget: &str, person_salt: PersonSaltState) -> BudgetPersonHasher {
    let id = BudgetId::parse(budget).unwrap();
    let budget = Budget { id, person_salt, ..default_budgets().unwrap().remove(0) };
    PersonSecret::new(&[1; 32]).unwrap().for_budget(&budget).unwrap()
}

pub fn salted(salt: u8) -> PersonSaltState {
    PersonSaltState::Salted(PersonSalt::from_bytes([salt; PersonSalt::BYTES]))
}

#[test]
fn a_person_key_stays_the_same_for_the_same_secret() {
    let persons = persons_of("taxes", PersonSaltState::DeploymentOnly);
    let person = PersonId::parse("p-1").unwrap();
    assert_eq!(hex::encode(persons.key(&person).as_bytes()), "55ab86e245f535f5ead91a7a45d2614f");
    let id = |person| persons.submission_id(person, "a-1").0.to_string();
    assert_eq!(id(Some(&person)), "376a0d51-3871-863d-b486-ad6c11b11cc5");
    assert_eq!(id(None), "bb9e00b3-6a3e-82c5-94f1-c078d78d7e89");
}

#[test]
fn a_person_key_of_a_budget_with_a_salt_stays_the_same_and_no_other_budget_has_it() {
    let person = PersonId::parse("p-1").unwrap();
    let key = |budget, secret| hex::encode(persons_of(budget, secret).key(&person).as_bytes());
    // HMAC-SHA-256 of `taxes`, 00, `p-1`, under HMAC-SHA-256 of 00, `budget`, 00, `taxes`, 00 and the salt.
    assert_eq!(key("taxes", salted(2)), "a6532c06210b29a369669a149b2fd44a");
    let persons = persons_of("taxes", salted(2));
    assert_eq!(
        persons.submission_id(Some(&person), "a-1").0.to_string(),
        "6714a32d-6c9c-8470-b94a-1959c7ccb918"
    );
    let keys = [
        key("taxes", salted(2)),
        key("taxes", salted(3)),
        key("parks", salted(2)),
        key("taxes", PersonSaltState::DeploymentOnly),
        key("parks", PersonSaltState::DeploymentOnly),
    ];
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
}

#[test]
fn nobody_derives_a_key_of_a_forgotten_budget() {
    let at = "2027-01-02T03:04:05Z".parse().unwrap();
    let person_salt = PersonSaltState::Forgotten { at };
    let budget = Budget { person_salt, ..default_budgets().unwrap().remove(0) };
    let persons = PersonSecret::new(&[1; 32]).unwrap().for_budget(&budget);
    assert_eq!(persons.err(), Some(PersonsForgotten { at }));
}

#[test]
fn the_key_of_an_issuers_subject_stays_the_same_and_no_client_can_name_it() {
    let persons = persons_of("taxes", PersonSaltState::DeploymentOnly);
    let key = |person: &PersonId| hex::encode(persons.key(person).as_bytes());
    let subject = PersonId::of_issuer("code", "0000A").unwrap();
    // HMAC-SHA-256 of `taxes`, 00, 03, `code`, 03, `0000A`.
    assert_eq!(key(&subject), "e20d865f0e32d9a7994736d07e295d70");
    assert_eq!(subject.reveal(), "0000A");
    let named = PersonId::parse("0000A").unwrap();
    let other_issuer = PersonId::of_issuer("https://id.example", "0000A").unwrap();
    let keys = [key(&subject), key(&named), key(&other_issuer)];
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    assert!(PersonId::parse("\u{3}code\u{3}0000A").is_err());
    assert!(PersonId::of_issuer("co\u{3}de", "0000A").is_err());
}

#[test]
fn the_derived_secret_of_a_purpose_stays_the_same() {
    let secret = PersonSecret::new(&[1; 32]).unwrap().derived_secret("session");
    // HMAC-SHA-256 of 00, `derived`, 00, `session`.
    let expected = "7502b5e11f967c3a00a1726e7e4e6da8d02e7f044af015611c17a8bb7f7b95a8";
    assert_eq!(hex::encode(secret), expected);
}

#[test]
fn the_fingerprint_of_a_secret_stays_the_same_and_reveals_nothing() {
    let secret = [1; 32];
    let fingerprint = PersonSecret::new(&secret).unwrap().fingerprint().to_string();
    // The first half of an HMAC-SHA-256 under the secret.
    assert_eq!(fingerprint, "23d6e871e5ab26f0e6638e86ee565447");
    let other = PersonSecret::new(&[2; 32]).unwrap().fingerprint();
    assert_ne!(other.to_string(), fingerprint);
}
