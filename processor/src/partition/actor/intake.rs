//! What the owner does with a batch: new records are folded into totals and people, those that the totals contain
//! already bring people up to date, and the one by which the log is known again must be among them.

use schemas::{Receipt, record_fingerprint};
use storage::log::{DeadLetter, Record, RecordBatch};
use storage::store::RecordMark;
use tokio::time::Instant;

use super::Partition;
use crate::fold::{DeadReason, Outcome, Reach};
use crate::partition::HaltReason;
use crate::partition::restore::matches_mark;

impl Partition {
    /// Folds what is new of a batch, and replays what the totals contain already.
    pub(super) fn fold(&mut self, batch: &RecordBatch) -> Result<(), HaltReason> {
        let started = Instant::now();
        let (mut applied, mut duplicates) = (0, 0);
        let mut last = None;
        for record in batch.iter() {
            if self.committed.position.includes(record.offset) {
                self.replay(record)?;
                continue;
            }
            if self.folded.position.includes(record.offset) {
                continue;
            }
            self.require_mark_met()?;
            match self.state.fold(record, Reach::Everything) {
                Outcome::Applied => {
                    self.storm.good();
                    applied += 1;
                }
                Outcome::Duplicate => {
                    self.storm.good();
                    duplicates += 1;
                }
                Outcome::DeadLetter(reason) => self.put_aside(record, &reason)?,
            }
            self.folded.position = record.offset.next();
            last = Some(record);
        }
        if let Some(record) = last {
            self.took_in(record, applied, duplicates, started);
        }
        Ok(())
    }

    /// A record that cannot be taken waits for the commit that passes it, unless there are too many of them.
    fn put_aside(&mut self, record: Record<'_>, reason: &DeadReason) -> Result<(), HaltReason> {
        let (offset, reason) = (record.offset, reason.to_string());
        if let Err(storm) = self.storm.bad() {
            return Err(HaltReason::DeadLetters { storm, offset, reason });
        }
        self.folded.tally.dead_lettered += 1;
        self.letters.push(DeadLetter {
            place: Receipt { log: self.parts.log.number, partition: self.id.partition, offset },
            reason,
            key: record.key.to_vec(),
            value: record.value.to_vec(),
        });
        Ok(())
    }

    fn took_in(&mut self, last: Record<'_>, applied: u64, duplicates: u64, started: Instant) {
        if !std::mem::replace(&mut self.took_in_any, true) {
            tracing::info!(
                partition = %self.id.partition,
                epoch = self.epoch.0,
                position = %last.offset,
                elapsed_ms = self.claimed_at.elapsed().as_millis() as u64,
                "first new record since the claim",
            );
        }
        self.folded.last_record = Some(RecordMark {
            offset: last.offset,
            fingerprint: record_fingerprint(last.key, last.value),
        });
        self.folded.identity.get_or_insert_with(|| self.parts.identity.clone());
        self.folded.tally.applied += applied;
        self.folded.tally.duplicates += duplicates;
        self.parts.progress.set_high(self.folded.position);
        self.parts.metrics.folded(applied, duplicates, started.elapsed());
    }

    /// A record that the totals contain already: it brings people's rows up to the totals' position.
    fn replay(&mut self, record: Record<'_>) -> Result<(), HaltReason> {
        if let Some(mark) = self.mark
            && mark.offset == record.offset
        {
            if !matches_mark(mark, record) {
                return Err(HaltReason::OtherRecord(record.offset));
            }
            self.mark = None;
        }
        if !self.committed.state_position.includes(record.offset) {
            self.state.fold(record, Reach::PeopleOnly);
        }
        Ok(())
    }

    fn require_mark_met(&self) -> Result<(), HaltReason> {
        self.mark.map_or(Ok(()), |mark| Err(HaltReason::MarkMissing(mark.offset)))
    }
}
