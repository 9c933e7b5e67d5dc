//! Folding one batch. New records update totals and people; records that the totals already contain are replayed into
//! people only; the last of them identifies the log. The log must deliver every offset: a skipped record would never be
//! counted.

use runtime::clock::now_ms;
use schemas::{Position, RecordAddress, record_fingerprint};
use storage::log::{DeadLetter, Record, RecordBatch};
use storage::store::RecordFingerprint;
use tokio::time::Instant;

use super::PartitionOwner;
use crate::fold::{DeadLetterReason, FoldMode, FoldOutcome, HistoryFloor, InconsistentState};
use crate::partition::pace::MAX_COMMIT_BYTES;
use crate::partition::{HaltReason, OwnerExit, matches_fingerprint};

impl PartitionOwner {
    /// Folds a batch's new records, and replays those that the totals already contain. A batch that changes more totals
    /// than fit into one commit is kept, and the rest of it is folded after the commit.
    pub(super) fn fold(&mut self, batch: RecordBatch) -> Result<(), OwnerExit> {
        let started = Instant::now();
        // The clock decides only what has expired, never what a point contains.
        self.state.set_history_floor(HistoryFloor::at(now_ms()));
        let (mut applied, mut duplicates, mut late) = (0, 0, 0);
        let mut last = None;
        let mut is_complete = true;
        for record in batch.iter() {
            if self.state.changed_bytes() >= MAX_COMMIT_BYTES {
                is_complete = false;
                break;
            }
            // Delivered twice, or folded before a commit.
            if self.next_read.includes(record.offset) {
                continue;
            }
            if Position(record.offset.0) != self.next_read {
                let (expected, found) = (self.next_read, record.offset);
                return Err(OwnerExit::LogGap { expected, found });
            }
            self.next_read = record.offset.next();
            if self.committed.position.includes(record.offset) {
                self.replay(record)?;
                continue;
            }
            match self.state.fold(record, FoldMode::Live).map_err(inconsistent)? {
                FoldOutcome::Applied => {
                    self.dead_letter_limit.record_accepted();
                    applied += 1;
                }
                FoldOutcome::Duplicate => {
                    self.dead_letter_limit.record_accepted();
                    duplicates += 1;
                }
                FoldOutcome::Late => {
                    self.dead_letter_limit.record_accepted();
                    late += 1;
                }
                FoldOutcome::DeadLetter(reason) => self.dead_letter(record, &reason)?,
            }
            self.folded.position = record.offset.next();
            last = Some(record);
        }
        if let Some(record) = last {
            // The tally has no number of its own for late submissions, which change as little.
            self.advance(record, applied, duplicates, late, started);
        }
        if !is_complete {
            self.unfinished_batch = Some(batch);
        }
        Ok(())
    }

    /// Buffers a rejected record until the commit that passes it, unless too many are rejected.
    fn dead_letter(
        &mut self,
        record: Record<'_>,
        reason: &DeadLetterReason,
    ) -> Result<(), HaltReason> {
        let (offset, reason) = (record.offset, reason.to_string());
        if let Err(exceeded) = self.dead_letter_limit.record_rejected() {
            return Err(HaltReason::TooManyDeadLetters { exceeded, offset, reason });
        }
        self.folded.tally.dead_lettered += 1;
        self.dead_letters.push(DeadLetter {
            source: RecordAddress {
                log: self.deps.log.number,
                partition: self.id.partition,
                offset,
            },
            reason,
            key: record.key.to_vec(),
            value: record.value.to_vec(),
        });
        Ok(())
    }

    /// Moves the folded checkpoint past a batch's last new record.
    fn advance(
        &mut self,
        last: Record<'_>,
        applied: u64,
        duplicates: u64,
        late: u64,
        started: Instant,
    ) {
        if !std::mem::replace(&mut self.has_folded_new_record, true) {
            tracing::info!(
                partition = %self.id.partition,
                epoch = self.epoch.0,
                position = %last.offset,
                elapsed_ms = self.began_at.elapsed().as_millis() as u64,
                "first new record since the claim",
            );
        }
        self.folded.last_record = Some(RecordFingerprint {
            offset: last.offset,
            fingerprint: record_fingerprint(last.key, last.value),
        });
        self.folded.identity.get_or_insert_with(|| self.deps.identity.clone());
        self.folded.tally.applied += applied;
        self.folded.tally.duplicates += duplicates + late;
        self.deps.progress.set_high(self.folded.position);
        self.deps.metrics.folded(applied, duplicates, late, started.elapsed());
    }

    /// Replays a record that the totals already contain: brings people up to the totals' position.
    fn replay(&mut self, record: Record<'_>) -> Result<(), OwnerExit> {
        if !self.people_position.includes(record.offset) {
            self.state.fold(record, FoldMode::Replay).map_err(inconsistent)?;
        }
        if let Some(expected) = self.expected_record
            && expected.offset == record.offset
        {
            if !matches_fingerprint(expected, record) {
                return Err(HaltReason::OtherRecord(record.offset).into());
            }
            self.expected_record = None;
            self.check_people()?;
        }
        Ok(())
    }
}

fn inconsistent(fault: InconsistentState) -> HaltReason {
    HaltReason::Invariant(fault.to_string())
}
