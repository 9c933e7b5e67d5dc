//! Appends one record for each person of an annulment or a restoration.
//!
//! Batches follow one another, so that submissions are not held up. A batch whose outcome is unknown is sent again with
//! the same bytes: a repeated record about a person changes nothing.

use std::sync::Arc;
use std::time::Duration;

use schemas::{
    AnnulmentAction, AnnulmentId, AnnulmentStamp, BudgetId, PersonKey, PublishStep, RecordEncoder,
};
use storage::log::{AppendError, LogWriter, NewRecord};
use tokio::time::sleep;

use crate::progress::Progress;

/// Records of one append.
const BATCH_RECORDS: usize = 500;
/// Maximum attempts to append a batch. Each may take about a second, and some seconds while the log is moved.
const MAX_ATTEMPTS: u32 = 20;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Appends the records of one annulment.
pub struct AnnulmentAppender {
    /// Appends to the active log.
    pub writer: Arc<dyn LogWriter>,
    /// The budget.
    pub budget: BudgetId,
    /// The annulment.
    pub id: AnnulmentId,
    /// What the records do to their people.
    pub action: AnnulmentAction,
    /// The publish step of the budget's rules.
    pub publish_step: PublishStep,
    /// A clock: milliseconds since 1970.
    pub now_ms: fn() -> u64,
}

/// Records could not be appended. They may be in the log, and may be appended again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("records of the annulment could not be appended: {0}")]
pub struct AppendFailed(AppendError);

impl AnnulmentAppender {
    /// Appends a record for each person. The progress counts people.
    ///
    /// # Errors
    /// When the log stays unavailable after retries.
    pub async fn append(
        &self,
        people: &[PersonKey],
        progress: &Progress,
    ) -> Result<(), AppendFailed> {
        progress.set_done(0);
        progress.set_total(people.len() as u64);
        for batch in people.chunks(BATCH_RECORDS) {
            self.append_batch(self.encode(batch)).await?;
            progress.add_done(batch.len() as u64);
        }
        Ok(())
    }

    fn encode(&self, people: &[PersonKey]) -> Vec<NewRecord> {
        let stamp =
            AnnulmentStamp { appended_at_ms: (self.now_ms)(), publish_step: self.publish_step };
        // All records have the same value: the key is the person.
        let value =
            RecordEncoder::default().encode_annulment(&self.budget, self.id, self.action, stamp);
        people.iter().map(|key| NewRecord { key: *key, value: value.clone() }).collect()
    }

    async fn append_batch(&self, mut records: Vec<NewRecord>) -> Result<(), AppendFailed> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut results = self.writer.append(records.clone()).await.into_iter();
            let mut last_error = None;
            records.retain(|_| match results.next() {
                Some(Ok(_)) => false,
                Some(Err(error)) => {
                    last_error = Some(error);
                    true
                }
                None => {
                    let reason = "the log returned no outcome".to_owned();
                    last_error = Some(AppendError::Unknown(reason));
                    true
                }
            });
            let Some(error) = last_error else { return Ok(()) };
            if attempts == MAX_ATTEMPTS {
                return Err(AppendFailed(error));
            }
            tracing::debug!(%error, records = records.len(), "failed to append annulments, retrying");
            sleep(RETRY_DELAY).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use schemas::{LogNumber, Offset, PartitionId, RecordAddress, RecordDecoder, RecordKind};

    use super::*;

    /// A log that fails every third record, after writing every second one of these.
    #[derive(Default)]
    struct FailingLog {
        calls: Mutex<u64>,
        written: Mutex<Vec<NewRecord>>,
    }

    #[async_trait]
    impl LogWriter for FailingLog {
        async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
            assert!(records.len() <= BATCH_RECORDS);
            let mut calls = self.calls.lock();
            let mut written = self.written.lock();
            let append = |record: NewRecord| {
                *calls += 1;
                let fails = calls.is_multiple_of(3);
                if !fails || calls.is_multiple_of(2) {
                    written.push(record);
                }
                let (log, partition) = (LogNumber::FIRST, PartitionId(0));
                let unknown = || AppendError::Unknown("timed out".to_owned());
                let address =
                    RecordAddress { log, partition, offset: Offset(written.len() as u64) };
                if fails { Err(unknown()) } else { Ok(address) }
            };
            records.into_iter().map(append).collect()
        }

        fn available(&self) -> Result<(), AppendError> {
            Ok(())
        }
    }

    /// A log that is never available.
    struct NoLog;

    #[async_trait]
    impl LogWriter for NoLog {
        async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
            records.iter().map(|_| Err(AppendError::Sealed)).collect()
        }

        fn available(&self) -> Result<(), AppendError> {
            Ok(())
        }
    }

    fn appender(writer: Arc<dyn LogWriter>) -> AnnulmentAppender {
        AnnulmentAppender {
            writer,
            budget: BudgetId::parse("parks").unwrap(),
            id: AnnulmentId(uuid::Uuid::from_u128(9)),
            action: AnnulmentAction::Annul,
            publish_step: PublishStep::nearest(10),
            now_ms: || 1_795_212_000_123,
        }
    }

    fn people(count: u128) -> Vec<PersonKey> {
        (0..count).map(|number| PersonKey::from_bytes(number.to_be_bytes())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_has_a_record_whatever_fails_and_every_record_is_the_same_decision() {
        let (log, people, progress) =
            (Arc::<FailingLog>::default(), people(1_234), Progress::default());
        appender(log.clone()).append(&people, &progress).await.unwrap();
        assert_eq!(progress.done_and_total(), (1_234, 1_234));
        let written = log.written.lock();
        let mut keys: Vec<_> = written.iter().map(|record| record.key).collect();
        assert!(keys.len() > people.len(), "some were written and not acknowledged");
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys, people);
        let mut decoder = RecordDecoder::default();
        for record in &*written {
            let view = decoder.decode(record.key.as_bytes(), &record.value).unwrap();
            assert_eq!(view.kind, RecordKind::Annulment(AnnulmentAction::Annul));
            assert_eq!((view.budget, view.publish_step.get()), ("parks", 10));
            assert_eq!(view.submission_id.0, uuid::Uuid::from_u128(9));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_stays_unavailable_ends_the_attempt() {
        let failed = appender(Arc::new(NoLog)).append(&people(3), &Progress::default()).await;
        assert_eq!(failed, Err(AppendFailed(AppendError::Sealed)));
    }
}
