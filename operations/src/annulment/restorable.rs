//! Whom an annulment holds: everyone whose latest decision in the log is that annulment.

use std::collections::HashMap;
use std::ops::Range;

use schemas::{
    AnnulmentAction, AnnulmentId, BudgetId, PartitionId, PersonKey, Position, RecordDecoder,
    RecordKind,
};
use storage::log::{LogReader, ReadError, Record};
use storage::retry::{RetryBudget, retry};

use crate::progress::Progress;

/// Returns the people whom an annulment holds, in order. Reads the whole log, whose records the progress counts.
///
/// People whom another annulment has annulled since are not among them, nor those who were restored.
///
/// # Errors
/// When the log cannot be read, or its beginning is in no archive.
pub async fn people_annulled_by(
    log: &dyn LogReader,
    budget: &BudgetId,
    id: AnnulmentId,
    progress: &Progress,
) -> Result<Vec<PersonKey>, ReadError> {
    let mut ranges = Vec::new();
    for partition in log.partitions().partitions() {
        let bounds = retry(|| log.bounds(partition)).await?;
        if bounds.low > Position::START {
            // A truncated log cannot tell whom the annulment holds.
            return Err(ReadError::Missing(Position::START));
        }
        ranges.push((partition, bounds.low..bounds.high));
    }
    let records = |range: &Range<Position>| range.end.0.saturating_sub(range.start.0);
    progress.set_done(0);
    progress.set_total(ranges.iter().map(|(_, range)| records(range)).sum());
    let mut decisions = Decisions { budget, id, latest: HashMap::new() };
    for (partition, range) in ranges {
        decisions.read(log, partition, range, progress).await?;
    }
    Ok(decisions.held())
}

/// The latest decisions about the people of one budget.
struct Decisions<'b> {
    budget: &'b BudgetId,
    id: AnnulmentId,
    /// Whether the latest decision is the annulment `id`.
    latest: HashMap<PersonKey, bool>,
}

impl Decisions<'_> {
    /// Reads a range of a partition. After a transient failure, it is read on from the reached position.
    async fn read(
        &mut self,
        log: &dyn LogReader,
        partition: PartitionId,
        mut range: Range<Position>,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        let (mut decoder, mut retries) = (RecordDecoder::default(), RetryBudget::default());
        while range.start < range.end {
            let mut batches = log.read(partition, range.clone());
            let mut failure = None;
            while let Some(batch) = batches.recv().await {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                };
                for record in batch.iter() {
                    self.add(&mut decoder, record);
                    range.start = record.offset.next();
                    progress.add_done(1);
                }
            }
            if range.start < range.end {
                let ended = || ReadError::Unavailable("the reading ended early".to_owned());
                retries.wait(failure.unwrap_or_else(ended)).await?;
            }
        }
        Ok(())
    }

    fn add(&mut self, decoder: &mut RecordDecoder, record: Record<'_>) {
        // What cannot be decoded is a dead letter.
        let Ok(view) = decoder.decode(record.key, record.value) else { return };
        let RecordKind::Annulment(action) = view.kind else { return };
        if view.budget == self.budget.as_str() {
            let is_held = action == AnnulmentAction::Annul && view.submission_id.0 == self.id.0;
            self.latest.insert(view.person, is_held);
        }
    }

    fn held(self) -> Vec<PersonKey> {
        let held = self.latest.into_iter().filter(|(_, is_held)| *is_held);
        let mut people: Vec<_> = held.map(|(person, _)| person).collect();
        people.sort_unstable();
        people
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::{
        Action, AnnulmentStamp, Offset, PublishStep, RecordEncoder, Submission, SubmissionId,
        encode_record,
    };
    use uuid::Uuid;

    use super::*;

    fn budget(id: &str) -> BudgetId {
        BudgetId::parse(id).unwrap()
    }

    fn person(number: u8) -> PersonKey {
        PersonKey::from_bytes([number; 16])
    }

    /// A record about a person: in which budget, by which annulment, and whether it restores.
    #[derive(Debug, Clone, Copy)]
    struct Decision {
        person: u8,
        is_other_budget: bool,
        id: u128,
        is_restored: bool,
    }

    fn value(decision: Decision) -> Vec<u8> {
        let budget = budget(if decision.is_other_budget { "roads" } else { "parks" });
        let stamp = AnnulmentStamp { appended_at_ms: 5, publish_step: PublishStep::ONE };
        let action = match decision.is_restored {
            true => AnnulmentAction::Restore,
            false => AnnulmentAction::Annul,
        };
        let id = AnnulmentId(Uuid::from_u128(decision.id));
        RecordEncoder::default().encode_annulment(&budget, id, action, stamp)
    }

    fn held(records: &[(PersonKey, Vec<u8>)], id: u128) -> Vec<PersonKey> {
        let parks = budget("parks");
        let id = AnnulmentId(Uuid::from_u128(id));
        let mut decisions = Decisions { budget: &parks, id, latest: HashMap::new() };
        let mut decoder = RecordDecoder::default();
        for (offset, (key, value)) in (0..).zip(records) {
            let record = Record { offset: Offset(offset), key: key.as_bytes(), value };
            decisions.add(&mut decoder, record);
        }
        decisions.held()
    }

    #[test]
    fn submissions_and_damaged_records_decide_nothing() {
        let submission = Submission {
            budget: budget("parks"),
            person: person(1),
            id: SubmissionId(Uuid::from_u128(1)),
            accepted_at_ms: 5,
            action: Action::Withdraw,
        };
        let first = Decision { person: 1, is_other_budget: false, id: 1, is_restored: false };
        let records = [
            (person(1), value(first)),
            (person(1), encode_record(&submission)),
            (person(1), b"damaged".to_vec()),
        ];
        assert_eq!(held(&records, 1), [person(1)]);
    }

    proptest! {
        #[test]
        fn an_annulment_holds_exactly_those_whose_latest_decision_it_is(
            decisions in prop::collection::vec(
                (0..4_u8, any::<bool>(), 1..4_u128, any::<bool>()), 0..30),
        ) {
            let decisions: Vec<_> = decisions
                .into_iter()
                .map(|(person, is_other_budget, id, is_restored)| Decision {
                    person, is_other_budget, id, is_restored,
                })
                .collect();
            let records: Vec<_> = decisions.iter().map(|it| (person(it.person), value(*it))).collect();
            for id in 1..4 {
                let is_held = |number: &u8| {
                    let about = |it: &&Decision| it.person == *number && !it.is_other_budget;
                    let latest = decisions.iter().rev().find(about);
                    latest.is_some_and(|latest| latest.id == id && !latest.is_restored)
                };
                let expected: Vec<_> = (0..4).filter(is_held).map(person).collect();
                prop_assert_eq!(held(&records, id), expected);
            }
        }
    }
}
