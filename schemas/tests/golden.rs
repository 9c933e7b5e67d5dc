//! The bytes of a record as they have been written to topics: a reader must understand them for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use schemas::*;
use uuid::Uuid;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

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
        hex(&bytes),
        "08011205746178657\
         31a100198000000007000800000000000000120fbf6e4d79f3428013206a01fde1b9213"
    );
}

#[test]
fn a_withdrawal_keeps_its_bytes() {
    let bytes = encode_record(&submission(Action::Withdraw));
    assert_eq!(
        hex(&bytes),
        "08011205746178657\
         31a100198000000007000800000000000000120fbf6e4d79f342802"
    );
}

#[test]
fn a_person_key_stays_the_same_for_the_same_secret() {
    let hasher = PersonKeyHasher::new(&[1; 32]).unwrap();
    let key = hasher.key(&BudgetId::parse("taxes").unwrap(), &PersonName::parse("p-1").unwrap());
    assert_eq!(hex(key.as_bytes()), "55ab86e245f535f5ead91a7a45d2614f");
}

#[test]
fn what_is_not_ours_is_told_apart() {
    let mut decoder = RecordDecoder::default();
    let good = encode_record(&submission(Action::Withdraw));
    assert_eq!(decoder.decode(b"short", &good), Err(RecordFault::Key(5)));
    assert_eq!(decoder.decode(&[7; 16], b"\xff garbage"), Err(RecordFault::Garbage));
    assert_eq!(decoder.decode(&[7; 16], b""), Err(RecordFault::Version(0)));
    let twice = [good.as_slice(), &[0x32, 0x01, 0x05]].concat();
    assert_eq!(decoder.decode(&[7; 16], &twice), Err(RecordFault::WithdrawalWithShares));
    let late = Submission { accepted_at_ms: 100_000_000_000_000, ..submission(Action::Withdraw) };
    let refused = decoder.decode(&[7; 16], &encode_record(&late)).map(|_| ());
    assert_eq!(refused, Err(RecordFault::Time(100_000_000_000_000)));
    assert!(decoder.decode(&[7; 16], &good).is_ok(), "a fault leaves nothing behind");
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
    fn no_bytes_panic_the_decoder(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
        let _ = RecordDecoder::default().decode(&key, &value);
    }

    #[test]
    fn a_persons_row_survives_its_columns(shares in allocation(), withdrawn in any::<bool>(), offset in 0..i64::MAX as u64, prints in prop::collection::vec(1..u64::MAX, 0..=RECENT_SUBMISSIONS)) {
        let mut recent = [None; RECENT_SUBMISSIONS];
        for (place, print) in recent.iter_mut().zip(prints) {
            *place = Some(SubmissionFingerprint(print));
        }
        let row = PersonRow {
            person: PersonKey::from_bytes([9; 16]),
            budget: BudgetId::parse("taxes").unwrap(),
            offset: Offset(offset),
            basis_points: if withdrawn { vec![] } else { shares.iter().map(|s| *s as u16).collect() },
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
