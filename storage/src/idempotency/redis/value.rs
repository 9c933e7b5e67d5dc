//! The value of an attempt's key in Redis.
//!
//! | value | means |
//! |---|---|
//! | `<digest>` | it is in flight |
//! | `<digest> <receipt>` | it is accepted |
//! | `<digest> ?` | it may be in the log |
//!
//! Releases that do not write the last form take it for a new id, whatever the content, and leave it until they accept
//! the submission.

use schemas::RecordAddress;

use crate::idempotency::{BeginOutcome, IdempotentSubmission};

/// Stands in place of a receipt while it is unknown whether there is one.
const UNKNOWN_MARK: &str = "?";

pub(super) fn in_flight(attempt: &IdempotentSubmission) -> String {
    format!("{:016x}", attempt.digest)
}

pub(super) fn unknown(attempt: &IdempotentSubmission) -> String {
    format!("{:016x} {UNKNOWN_MARK}", attempt.digest)
}

pub(super) fn accepted(attempt: &IdempotentSubmission, address: &RecordAddress) -> String {
    format!("{:016x} {address}", attempt.digest)
}

/// Returns the outcome for a value of the attempt's key. A malformed value counts as none.
pub(super) fn begin_outcome(attempt: &IdempotentSubmission, value: &[u8]) -> BeginOutcome {
    let Ok(text) = std::str::from_utf8(value) else { return BeginOutcome::First };
    let (digest, result) = match text.split_once(' ') {
        Some((digest, UNKNOWN_MARK)) => (digest, Ok(BeginOutcome::First)),
        Some((digest, receipt)) => (digest, receipt.parse().map(BeginOutcome::Repeat)),
        None => (text, Ok(BeginOutcome::InFlight)),
    };
    match (u64::from_str_radix(digest, 16), result) {
        (Err(_), _) | (_, Err(_)) => BeginOutcome::First,
        (Ok(digest), _) if digest != attempt.digest => BeginOutcome::Reused,
        (Ok(_), Ok(outcome)) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{BudgetId, LogNumber, Offset, PartitionId, PersonKey, SubmissionId};
    use uuid::Uuid;

    use super::*;

    fn attempt(digest: u64) -> IdempotentSubmission {
        IdempotentSubmission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: PersonKey::from_bytes([1; 16]),
            submission: SubmissionId(Uuid::from_u128(1)),
            digest,
        }
    }

    proptest! {
        #[test]
        fn stored_values_yield_the_outcome_they_were_written_for(
            digest: u64, other: u64, log in 0..3_u32, partition in 0..1_024_u32, offset in 0..i64::MAX as u64,
        ) {
            let address = RecordAddress { log: LogNumber(log), partition: PartitionId(partition), offset: Offset(offset) };
            let outcome = |digest, value: &str| begin_outcome(&attempt(digest), value.as_bytes());
            prop_assert_eq!(outcome(digest, &in_flight(&attempt(digest))), BeginOutcome::InFlight);
            let stored = accepted(&attempt(digest), &address);
            prop_assert_eq!(outcome(digest, &stored), BeginOutcome::Repeat(address));
            let maybe_stored = unknown(&attempt(digest));
            prop_assert_eq!(outcome(digest, &maybe_stored), BeginOutcome::First);
            if other != digest {
                prop_assert_eq!(outcome(other, &stored), BeginOutcome::Reused);
                prop_assert_eq!(outcome(other, &maybe_stored), BeginOutcome::Reused);
            }
        }

        #[test]
        fn no_stored_value_causes_a_panic(bytes: Vec<u8>) {
            begin_outcome(&attempt(7), &bytes);
        }
    }
}
