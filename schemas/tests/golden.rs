//! Golden bytes of stored formats: they must be readable in all later releases.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use schemas::*;
use uuid::Uuid;

fn submission(action: Action) -> Submission {
    Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes([7; 16]),
        id: SubmissionId(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001)),
        accepted_at_ms: 1_795_212_000_123,
        action,
    }
}

#[test]
fn an_allocation_keeps_its_bytes() {
    let allocation = Allocation::new(&[4000, 3550, 2450]).unwrap();
    let bytes = encode_record(&submission(Action::Allocate(allocation)));
    assert_eq!(
        hex::encode(&bytes),
        "08011205746178657\
         31a100198000000007000800000000000000120fbf6e4d79f3428013206a01fde1b9213"
    );
}

#[test]
fn a_withdrawal_keeps_its_bytes() {
    let bytes = encode_record(&submission(Action::Withdraw));
    assert_eq!(
        hex::encode(&bytes),
        "08011205746178657\
         31a100198000000007000800000000000000120fbf6e4d79f342802"
    );
}

#[test]
fn a_record_with_a_generated_id_has_a_mark_that_earlier_releases_ignore() {
    let mut encoder = RecordEncoder::default();
    let bytes = encoder.encode_with_generated_id(&submission(Action::Withdraw));
    let unmarked = encode_record(&submission(Action::Withdraw));
    assert_eq!(hex::encode(&bytes), hex::encode(&unmarked) + "3801");
    let is_marked = |value: &[u8]| {
        RecordDecoder::default().decode(&[7; 16], value).map(|record| record.generated_id)
    };
    assert_eq!((is_marked(&bytes), is_marked(&unmarked)), (Ok(true), Ok(false)));
}

#[test]
fn an_annulment_keeps_its_bytes_and_has_neither_shares_nor_a_marker() {
    let budget = BudgetId::parse("taxes").unwrap();
    let id = AnnulmentId(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001));
    let stamp =
        AnnulmentStamp { appended_at_ms: 1_795_212_000_123, publish_step: PublishStep::default() };
    let encode = |action| RecordEncoder::default().encode_annulment(&budget, id, action, stamp);
    let (annul, restore) = (encode(AnnulmentAction::Annul), encode(AnnulmentAction::Restore));
    let head = "08011205746178657\
                31a100198000000007000800000000000000120fbf6e4d79f34";
    assert_eq!(hex::encode(&annul), format!("{head}28033801"));
    assert_eq!(hex::encode(&restore), format!("{head}28043801"));

    let mut decoder = RecordDecoder::default();
    let mut decode = |value: &[u8]| decoder.decode(&[7; 16], value).map(|view| view.kind);
    assert_eq!(decode(&annul), Ok(RecordKind::Annulment(AnnulmentAction::Annul)));
    assert_eq!(decode(&restore), Ok(RecordKind::Annulment(AnnulmentAction::Restore)));
    let chosen_id = &annul[..annul.len() - 2];
    let (shares, marker) = ("3202904e", "420408011001");
    let with = |addition| [annul.clone(), hex::decode(addition).unwrap()].concat();
    for invalid in [chosen_id, &with(shares), &with(marker)] {
        assert_eq!(decode(invalid), Err(RecordFault::Annulment));
    }
}

#[test]
fn a_record_of_a_budget_with_a_publish_step_has_a_number_that_earlier_releases_ignore() {
    let mut encoder = RecordEncoder::default();
    let mut encode = |step| {
        let stamp = RecordStamp { publish_step: PublishStep::nearest(step), ..Default::default() };
        encoder.encode_stamped(&submission(Action::Withdraw), stamp)
    };
    let without = encode_record(&submission(Action::Withdraw));
    assert_eq!(encode(1), without);
    assert_eq!(hex::encode(encode(10)), hex::encode(&without) + "480a");
    let read = |value: &[u8]| {
        let mut decoder = RecordDecoder::default();
        decoder.decode(&[7; 16], value).unwrap().publish_step.get()
    };
    assert_eq!((read(&without), read(&encode(10)), read(&encode(1_000))), (1, 10, 1_000));
    // A later release may allow more, and anybody's bytes may say more: the submission counts all the same.
    for hostile in ["48e907", "48ffffffff0f", "48ffffffffffffffffff01"] {
        let value = [without.clone(), hex::decode(hostile).unwrap()].concat();
        assert_eq!(read(&value), 1_000, "{hostile}");
    }
}

/// Totals of one person who gives everything to the second of two categories.
fn one_person() -> BudgetTotals {
    let mut categories = vec![CategoryTotals::default(); 2];
    categories.iter_mut().zip([0, 10_000]).for_each(|(category, share)| category.add_share(share));
    BudgetTotals {
        position: Position(7),
        people: 1,
        updated_at_ms: 9,
        categories,
        ..BudgetTotals::default()
    }
}

#[test]
fn totals_without_a_publish_step_keep_the_bytes_of_earlier_releases() {
    // Two times 101 counts: one person at 0 percent, one at 100.
    let counts = ["01", &"00".repeat(200), "01"].concat();
    let mut totals = one_person();
    assert_eq!(hex::encode(totals.encode_distribution()), format!("0aca01{counts}"));
    totals.closing = Closing::new(4, vec![Offset(5)]).unwrap();
    assert_eq!(hex::encode(totals.encode_distribution()), format!("0aca01{counts}1201051804"));
}

#[test]
fn annulled_people_and_the_digest_of_people_are_behind_what_earlier_releases_read() {
    let former = hex::encode(one_person().encode_distribution());
    let people_digest = Some(PeopleDigest::from_bits(0x0102_0304_0506_0708));
    let totals = BudgetTotals { annulled: 300, people_digest, ..one_person() };
    let bytes = totals.encode_distribution();
    assert_eq!(hex::encode(&bytes), format!("{former}30ac02390807060504030201"));
    let read = BudgetTotals::from_columns(Position(7), 1, 9, &[0, 10_000], &bytes);
    assert_eq!(read, Some(totals.clone()));
    // A release without it drops it together with the totals that it belongs to.
    let content_digest = Some(PeopleDigest::from_bits(0x1112_1314_1516_1718));
    let totals = BudgetTotals { content_digest, ..totals };
    let longer = totals.encode_distribution();
    assert_eq!(hex::encode(&longer), format!("{}411817161514131211", hex::encode(&bytes)));
    let read = BudgetTotals::from_columns(Position(7), 1, 9, &[0, 10_000], &longer);
    assert_eq!(read, Some(totals));
    let row = PersonRow {
        person: PersonKey::from_bytes([9; 16]),
        budget: BudgetId::parse("taxes").unwrap(),
        offset: Offset(3),
        basis_points: Vec::new(),
        annulled: false,
        recent: [None; RECENT_SUBMISSIONS],
    };
    let former = hex::encode(row.encode_state());
    assert_eq!(former, "0a0574617865731003");
    let annulled = PersonRow { annulled: true, ..row };
    assert_eq!(hex::encode(annulled.encode_state()), format!("{former}2801"));
}

#[test]
fn pending_people_keep_their_bytes() {
    let mut totals = BudgetTotals::default();
    let person = PersonKey::from_bytes(*b"12345678........");
    totals.hold_back(&person, PublishStep::nearest(10), true);
    let totals =
        BudgetTotals { pending: totals.pending, publish_step: totals.publish_step, ..one_person() };
    let bytes = totals.encode_distribution();
    let counts = ["01", &"00".repeat(200), "01"].concat();
    let pending = "2a0a2a083837363534333231";
    assert_eq!(hex::encode(&bytes), format!("0aca01{counts}200a{pending}"));
    let read = BudgetTotals::from_columns(Position(7), 1, 9, &[0, 10_000], &bytes);
    assert_eq!(read, Some(totals));
}

#[test]
fn a_history_point_keeps_its_bytes() {
    let point = HistoryPoint {
        step: HistoryStep::Minute,
        first: HistoryInstant(29_924_990),
        end: HistoryInstant(29_925_000),
        totals: HistoryTotals { people: 3, basis_points: vec![12_000, 18_000] },
    };
    let bytes = point.encode_state();
    assert_eq!(hex::encode(&bytes), "0888bda20e10031a05e05dd08c01");
    assert_eq!(HistoryPoint::decode(point.step, point.first, &bytes), Ok(point));
    let numbers = HistoryStep::ALL.map(HistoryStep::number);
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn the_digest_of_a_content_stays_the_same_and_a_record_has_that_of_its_submission() {
    let allocation = Allocation::new(&[2_500, 7_500]).unwrap();
    let submission = submission(Action::Allocate(allocation));
    // The first 8 bytes of SHA-256 of sixteen bytes 07, then 09c4 1d4c.
    assert_eq!(submission.content_digest(), 0xa4b1_9ffe_39d7_b463);
    let withdrawal = Submission { action: Action::Withdraw, ..submission.clone() };
    let mut decoder = RecordDecoder::default();
    for submission in [submission, withdrawal] {
        let record = encode_record(&submission);
        let record = decoder.decode(&[7; 16], &record).unwrap();
        assert_eq!(record.content_digest(), submission.content_digest());
        assert_eq!(record.submission_id, submission.id);
    }
}

/// What computes the keys of a budget's persons, under the deployment's secret of these tests.
fn persons_of(budget: &str, person_secret: PersonSecret) -> BudgetPersonHasher {
    let id = BudgetId::parse(budget).unwrap();
    let budget = Budget { id, person_secret, ..default_budgets().unwrap().remove(0) };
    PersonKeyHasher::new(&[1; 32]).unwrap().for_budget(&budget).unwrap()
}

fn salted(salt: u8) -> PersonSecret {
    PersonSecret::Salted(PersonSalt::from_bytes([salt; PersonSalt::BYTES]))
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
        key("taxes", PersonSecret::Deployment),
        key("parks", PersonSecret::Deployment),
    ];
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
}

#[test]
fn nobody_derives_a_key_of_a_forgotten_budget() {
    let at = "2027-01-02T03:04:05Z".parse().unwrap();
    let person_secret = PersonSecret::Forgotten { at };
    let budget = Budget { person_secret, ..default_budgets().unwrap().remove(0) };
    let persons = PersonKeyHasher::new(&[1; 32]).unwrap().for_budget(&budget);
    assert_eq!(persons.err(), Some(PersonsForgotten { at }));
}

const EARLIER_DEFINITION: &str = r#"{"id":"parks","name":"Parks","categories":[{"id":"trees","name":"Trees"},{"id":"benches","name":"Benches"}],"results":"live","minimum_people":1,"identity":"required","revision":7,"frozen":true}"#;

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
    assert_eq!(budget.person_secret, self::salted(2));
    assert_eq!(StoredBudget::document(&budget).unwrap(), salted);
    for shown in [serde_json::to_string(&budget).unwrap(), format!("{budget:?}")] {
        assert!(!shown.contains("0202") && !shown.contains("2, 2"), "{shown}");
    }
    assert_eq!(serde_json::to_string(&budget).unwrap(), EARLIER_DEFINITION);

    let at = "2027-01-02T03:04:05Z".parse().unwrap();
    let forgotten = Budget { person_secret: PersonSecret::Forgotten { at }, ..budget };
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
fn a_definition_of_an_earlier_release_is_read_and_written_without_a_salt() {
    let StoredBudget::Understood(budget) = StoredBudget::parse(EARLIER_DEFINITION.as_bytes())
    else {
        panic!("not understood");
    };
    assert_eq!(budget.person_secret, PersonSecret::Deployment);
    assert_eq!(StoredBudget::document(&budget).unwrap(), EARLIER_DEFINITION);
}

#[test]
fn a_person_key_stays_the_same_for_the_same_secret() {
    let persons = persons_of("taxes", PersonSecret::Deployment);
    let person = PersonId::parse("p-1").unwrap();
    assert_eq!(hex::encode(persons.key(&person).as_bytes()), "55ab86e245f535f5ead91a7a45d2614f");
    let id = |person| persons.submission_id(person, "a-1").0.to_string();
    assert_eq!(id(Some(&person)), "376a0d51-3871-863d-b486-ad6c11b11cc5");
    assert_eq!(id(None), "bb9e00b3-6a3e-82c5-94f1-c078d78d7e89");
}

#[test]
fn the_key_of_an_issuers_subject_stays_the_same_and_no_client_can_name_it() {
    let persons = persons_of("taxes", PersonSecret::Deployment);
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
    let secret = PersonKeyHasher::new(&[1; 32]).unwrap().derived_secret("session");
    // HMAC-SHA-256 of 00, `derived`, 00, `session`.
    let expected = "7502b5e11f967c3a00a1726e7e4e6da8d02e7f044af015611c17a8bb7f7b95a8";
    assert_eq!(hex::encode(secret), expected);
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

#[test]
fn the_fingerprint_of_a_secret_stays_the_same_and_reveals_nothing() {
    let secret = [1; 32];
    let fingerprint = PersonKeyHasher::new(&secret).unwrap().fingerprint().to_string();
    // The first half of an HMAC-SHA-256 under the secret.
    assert_eq!(fingerprint, "23d6e871e5ab26f0e6638e86ee565447");
    let other = PersonKeyHasher::new(&[2; 32]).unwrap().fingerprint();
    assert_ne!(other.to_string(), fingerprint);
}

#[test]
fn a_job_keeps_its_stored_field_names() {
    let job = r#"{"id":"01935b1e-0000-7000-8000-000000000001","revision":3,"kind":"replay_dead_letter","letter":"3.1042","resume":true,"priority":"high","asked_by":"otto","created_at_ms":5,"changed_at_ms":6,"state":"running","worker":"two","began_at_ms":7,"cancelling":false,"failed":[{"worker":"one","began_at_ms":5,"failed_at_ms":6,"error":"no luck"}],"progress":{"done":1,"of":2,"line":"half way"},"checkpoint":"{}"}"#;
    assert_eq!(schemas::job::Job::from_json(job).unwrap().to_json(), job);
}

#[test]
fn a_generation_registry_keeps_its_stored_field_names() {
    let registry = r#"{"revision":4,"term":2,"current":{"generation":2,"log":{"number":0,"topic":"submissions","partitions":12}},"building":{"record":{"generation":3,"log":{"number":3,"topic":"submissions-3","partitions":24}},"dry_run":false,"begun_at_ms":5,"job":null,"seal":{"opening":{"since_ms":6}}},"previous":{"generation":1,"log":{"number":0,"topic":"submissions","partitions":12}},"retired":[],"next":4}"#;
    assert_eq!(GenerationRegistry::from_json(registry).unwrap().to_json(), registry);
}

#[test]
fn invalid_records_are_rejected_with_their_fault() {
    let mut decoder = RecordDecoder::default();
    let good = encode_record(&submission(Action::Withdraw));
    assert_eq!(decoder.decode(b"short", &good), Err(RecordFault::Key(5)));
    assert_eq!(decoder.decode(&[7; 16], b"\xff garbage"), Err(RecordFault::Garbage));
    assert_eq!(decoder.decode(&[7; 16], b""), Err(RecordFault::Version(0)));
    let twice = [good.as_slice(), &[0x32, 0x01, 0x05]].concat();
    assert_eq!(decoder.decode(&[7; 16], &twice), Err(RecordFault::WithdrawalWithShares));
    let late = Submission { accepted_at_ms: 100_000_000_000_000, ..submission(Action::Withdraw) };
    let rejected = decoder.decode(&[7; 16], &encode_record(&late)).map(|_| ());
    assert_eq!(rejected, Err(RecordFault::Time(100_000_000_000_000)));
    assert!(decoder.decode(&[7; 16], &good).is_ok(), "a fault leaves no state behind");
}

proptest! {
    #[test]
    fn a_record_survives_its_bytes(shares in allocation(), person in any::<[u8; 16]>(), id in any::<u128>(), at in 0..100_000_000_000_000_u64) {
        let submission = Submission {
            person: PersonKey::from_bytes(person),
            id: SubmissionId(Uuid::from_u128(id)),
            accepted_at_ms: at,
            ..submission(Action::Allocate(Allocation::new(&shares).unwrap()))
        };
        let bytes = encode_record(&submission);
        let mut decoder = RecordDecoder::default();
        let view = decoder.decode(&person, &bytes).unwrap();
        prop_assert_eq!(view.budget, "taxes");
        prop_assert_eq!(view.person, submission.person);
        prop_assert_eq!(view.submission, submission.id.fingerprint());
        prop_assert_eq!(view.accepted_at_ms, at);
        prop_assert_eq!(view.basis_points, &shares[..]);
    }

    #[test]
    fn the_decoder_never_panics(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
        let _ = RecordDecoder::default().decode(&key, &value);
    }

    #[test]
    fn a_person_row_survives_its_columns(shares in allocation(), withdrawn in any::<bool>(), annulled in any::<bool>(), offset in 0..i64::MAX as u64, prints in prop::collection::vec(1..u64::MAX, 0..=RECENT_SUBMISSIONS)) {
        let mut recent = [None; RECENT_SUBMISSIONS];
        for (slot, print) in recent.iter_mut().zip(prints) {
            *slot = Some(SubmissionFingerprint(print));
        }
        let row = PersonRow {
            person: PersonKey::from_bytes([9; 16]),
            budget: BudgetId::parse("taxes").unwrap(),
            offset: Offset(offset),
            basis_points: if withdrawn { vec![] } else { shares.iter().map(|s| *s as u16).collect() },
            annulled,
            recent,
        };
        prop_assert_eq!(PersonRow::decode(row.person.as_bytes(), &row.encode_state()), Ok(row));
    }
}

/// Any allocation over 2 to 64 categories.
fn allocation() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..=10_000_u32, 1..64).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let mut shares = Vec::new();
        let mut last = 0;
        for cut in cuts {
            shares.push(cut - last);
            last = cut;
        }
        shares.push(10_000 - last);
        shares
    })
}

/// A definition with every member of its presentation.
const PRESENTED_DEFINITION: &str = include_str!("golden/presented_definition.json");

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
    let earlier = r#"{"id":"parks","name":"Parks","categories":[{"id":"trees","name":"Trees"},{"id":"benches","name":"Benches"}],"results":"live","minimum_people":1,"identity":"required","revision":7,"frozen":true}"#;
    let with = |step: u64| {
        earlier.replace(r#""identity""#, &format!(r#""publish_step":{step},"identity""#))
    };
    let read = |json: &str| match StoredBudget::parse(json.as_bytes()) {
        StoredBudget::Understood(budget) => budget,
        other => panic!("{other:?}"),
    };
    let one = Budget { publish_step: 1, ..read(&with(10)) };
    assert_eq!(serde_json::to_string(&one).unwrap(), earlier);
    assert_eq!(serde_json::to_string(&read(&with(10))).unwrap(), with(10));
    // Other releases may have other limits.
    for (step, nearest) in [(0, 1), (10, 10), (5_000, 1_000)] {
        assert_eq!(read(&with(step)).publish_step().get(), nearest);
        assert_eq!(read(&with(step)).faults().len(), usize::from(step != 10));
    }
    assert!(!read(earlier).keeps_frozen_rules(&read(&with(10))));
}

#[test]
fn a_definition_without_a_presentation_keeps_the_bytes_of_earlier_releases() {
    let earlier = r#"{"id":"parks","name":"Parks","categories":[{"id":"trees","name":"Trees"},{"id":"benches","name":"Benches"}],"results":"live","minimum_people":1,"identity":"required","revision":7,"frozen":true}"#;
    let StoredBudget::Understood(budget) = StoredBudget::parse(earlier.as_bytes()) else {
        panic!("not understood");
    };
    assert_eq!(*budget.presentation, Presentation::default());
    assert_eq!(serde_json::to_string(&budget).unwrap(), earlier);
}

fn signal(action: SignalAction, network: Option<NetworkDigest>) -> Signal {
    let agent = network.map(|_| AgentDigest(2));
    Signal {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes([7; 16]),
        accepted_at_ms: 1_795_212_000_123,
        action,
        origin: SignalOrigin { network, agent, identity: IdentityLevel::Token },
    }
}

#[test]
fn a_signal_keeps_its_bytes() {
    let head = "080112057461786573\
                1a1007070707070707070707070707070707\
                20fbf6e4d79f34";
    let ballot = SignalAction::Allocate(BallotDigest(3));
    let full = signal(ballot, Some(NetworkDigest(1)));
    let withdrawal = signal(SignalAction::Withdraw, None);
    let expected = [
        (&full, "2801310100000000000000390200000000000000410300000000000000"),
        (&withdrawal, "2802"),
    ];
    for (signal, tail) in expected {
        let bytes = signal.encode();
        assert_eq!(hex::encode(&bytes), format!("{head}{tail}4805"));
        assert!(bytes.len() <= SIGNAL_MAX_BYTES);
        assert_eq!(Signal::decode(&bytes).as_ref(), Ok(signal));
    }
    let decode = |text: &str| Signal::decode(&hex::decode(text).unwrap());
    let newer_level = decode(&format!("{head}28024863")).unwrap();
    assert_eq!(newer_level.origin.identity, IdentityLevel::Unrecognized);
    for (tail, fault) in [
        // A withdrawal with a ballot, an allocation without one, an unknown action, none.
        ("2802410300000000000000", SignalFault::Action),
        ("2801", SignalFault::Action),
        ("2807", SignalFault::Action),
        ("", SignalFault::Action),
        ("28020802", SignalFault::Version(2)),
        ("28021a0107", SignalFault::Person(1)),
        ("2802120121", SignalFault::Budget),
        ("ff", SignalFault::Garbage),
    ] {
        assert_eq!(decode(&format!("{head}{tail}")), Err(fault), "{tail}");
    }
    assert_eq!(Signal::decode(&[0; SIGNAL_MAX_BYTES + 1]), Err(SignalFault::TooLong(257)));
}

#[test]
fn digests_of_signals_keep_their_values_and_belong_to_a_day_and_a_budget() {
    let hasher = PersonKeyHasher::new(b"a secret of at least thirty-two bytes").unwrap();
    let signals = SignalHasher::new(&hasher);
    let (taxes, town) = (BudgetId::parse("taxes").unwrap(), BudgetId::parse("town").unwrap());
    let day_ms = 86_400_000;
    let midnight = 20_787 * day_ms;
    let day = signals.day_key(midnight);
    // All processes of a deployment, also of different releases, must agree.
    assert_eq!(day.network(&taxes, b"prefix").to_string(), "f411c89896d3c8fc");
    assert_eq!(day.agent(&taxes, b"prefix").to_string(), "8e709409c919461f");
    let allocation = Allocation::new(&[4000, 3550, 2450]).unwrap();
    let ballot = signals.ballot(&taxes, &allocation);
    assert_eq!(ballot.to_string(), "bb67412646101c01");
    assert_eq!(BallotDigest::parse(&ballot.to_string()), Some(ballot));

    assert!(day.covers(midnight) && day.covers(midnight + day_ms - 1));
    assert!(!day.covers(midnight - 1) && !day.covers(midnight + day_ms));
    assert_eq!(
        signals.day_key(midnight + day_ms - 1).network(&taxes, b"prefix"),
        day.network(&taxes, b"prefix")
    );
    for other in [midnight - 1, midnight + day_ms] {
        let other = signals.day_key(other);
        assert_ne!(other.network(&taxes, b"prefix"), day.network(&taxes, b"prefix"));
        assert_ne!(other.agent(&taxes, b"prefix"), day.agent(&taxes, b"prefix"));
    }
    assert_ne!(day.network(&town, b"prefix"), day.network(&taxes, b"prefix"));
    assert_ne!(signals.ballot(&town, &allocation), ballot);
    for not_a_digest in ["", "12", "0123456789abcdeg", "+123456789abcdef", "0123456789abcdef0"] {
        assert_eq!(NetworkDigest::parse(not_a_digest), None, "{not_a_digest}");
    }
    let shown = format!("{signals:?} {day:?}");
    assert_eq!(shown, "SignalHasher(hidden) SignalDayKey(hidden)");
}

proptest! {
    #[test]
    fn hostile_signals_never_panic_and_what_decodes_encodes_the_same(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        flipped in 0usize..100, bit in 0u8..8,
    ) {
        let _ = Signal::decode(&bytes);
        let mut near = signal(SignalAction::Allocate(BallotDigest(3)), Some(NetworkDigest(1))).encode();
        let index = flipped % near.len();
        near[index] ^= 1 << bit;
        if let Ok(decoded) = Signal::decode(&near) {
            prop_assert_eq!(Signal::decode(&decoded.encode()), Ok(decoded));
        }
    }
}
