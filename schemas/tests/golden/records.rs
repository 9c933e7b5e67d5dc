//! Records of the log: submissions and annulments.

use proptest::prelude::*;
use schemas::*;
use uuid::Uuid;

use crate::shares::allocation;

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

#[test]
fn the_digest_of_a_content_stays_the_same_and_a_record_has_that_of_its_submission() {
    let allocation = Allocation::new(&[2_500, 7_500]).unwrap();
    let submission = submission(Action::Allocate(allocation));
    // The first 8 bytes of SHA-256 of sixteen bytes 07, then 09c4 1d4c.
    assert_eq!(submission.submission_digest(), 0xa4b1_9ffe_39d7_b463);
    let withdrawal = Submission { action: Action::Withdraw, ..submission.clone() };
    let mut decoder = RecordDecoder::default();
    for submission in [submission, withdrawal] {
        let record = encode_record(&submission);
        let record = decoder.decode(&[7; 16], &record).unwrap();
        assert_eq!(record.submission_digest(), submission.submission_digest());
        assert_eq!(record.submission_id, submission.id);
    }
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
}
