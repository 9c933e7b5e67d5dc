//! Totals, person rows and history points in the store.

use proptest::prelude::*;
use schemas::*;

use crate::shares::allocation;

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

proptest! {
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
