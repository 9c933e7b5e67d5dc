//! The control topic on Kafka: one compacted topic with one partition.
//!
//! Compare-and-set is built on Kafka's producer fencing. A process that makes a change opens a transactional producer
//! under one shared transactional id, which fences the producers of all others; it then reads the topic to its end,
//! decides, and commits. Of two concurrent changes one is fenced and retries. Readers see committed records only. The
//! producer is kept for the process's next change: unless it has been fenced, nobody has written since.
//!
//! | file | owns |
//! |---|---|
//! | `record` | the records: their keys, and how this release reads them |
//! | `consumers`, `client_context` | the clients |
//! | `follower` | the consumer thread, and the state that it maintains |
//! | `committed_end` | where the committed records end, and whether a read has reached that end |
//! | `end_reader` | reading the topic to its end on request |
//! | `transaction` | reading to the end, and writing in transactions |

mod client_context;
mod committed_end;
mod consumers;
mod end_reader;
mod follower;
mod record;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::KafkaError;
use schemas::{
    AnnulmentChange, AnnulmentRegister, Budget, BudgetId, LogRef, RevokedCodes, SecretFingerprint,
    SerialSet, StoredAnnulments, StoredBudget, StoredRevocations,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::end_reader::EndReader;
use self::follower::State;
use self::transaction::{WriteError, WriteSession};
use super::{
    ActiveLog, AnnulmentChangeError, AnnulmentRegisters, BudgetDefinitions, Catalog, Change,
    ChangeRefused, CodeRevocations, ControlTopicError, Deletion, Erasure, RevokeError,
    SecretRecord,
};
use crate::log::kafka::KafkaConfig;

const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
/// A step that takes longer hangs: its timeouts are shorter, unless the machine's clock, by which librdkafka waits, went back.
const STEP_HUNG_AFTER: Duration = Duration::from_secs(120);

/// The control topic on Kafka. Follows the topic from its start, in its own thread, until dropped.
pub struct KafkaControlTopic {
    config: KafkaConfig,
    state: Arc<State>,
    end_reader: EndReader,
    /// The session of the last change. Its lock serializes the changes of this process; Kafka serializes those of
    /// different processes.
    session: tokio::sync::Mutex<Option<WriteSession>>,
    stop: CancellationToken,
}

impl KafkaControlTopic {
    /// Starts following the topic. Does not wait for Kafka.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn open(config: &KafkaConfig) -> std::io::Result<Self> {
        let (state, stop) = (Arc::new(State::default()), CancellationToken::new());
        follower::spawn(config.clone(), Arc::clone(&state), stop.clone())?;
        Ok(Self {
            end_reader: EndReader::start(config.clone())?,
            config: config.clone(),
            state,
            session: tokio::sync::Mutex::default(),
            stop,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&KafkaConfig) -> T + Send + 'static,
    ) -> Result<T, ControlTopicError> {
        let config = self.config.clone();
        let done = tokio::task::spawn_blocking(move || step(&config));
        // A step that resumes later is fenced by then.
        let Ok(done) = tokio::time::timeout(STEP_HUNG_AFTER, done).await else {
            return Err(ControlTopicError::Unavailable("the kafka client has stopped".into()));
        };
        done.map_err(|error| ControlTopicError::Unavailable(error.to_string()))
    }
}

impl Drop for KafkaControlTopic {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl ActiveLog for KafkaControlTopic {
    fn is_loaded(&self) -> bool {
        self.state.is_log_known()
    }

    fn subscribe(&self) -> watch::Receiver<Option<LogRef>> {
        self.state.active_log.subscribe()
    }

    async fn announce(&self, log: &LogRef) -> Result<(), ControlTopicError> {
        let next = log.clone();
        let announced = self.write(move |config| transaction::announce_log(config, &next)).await?;
        self.state.update_log(announced);
        Ok(())
    }
}

#[async_trait]
impl SecretRecord for KafkaControlTopic {
    fn subscribe_secret(&self) -> watch::Receiver<Option<SecretFingerprint>> {
        self.state.secret.subscribe()
    }

    async fn record_secret(
        &self,
        fingerprint: &SecretFingerprint,
    ) -> Result<SecretFingerprint, ControlTopicError> {
        let wanted = fingerprint.clone();
        let record = move |config: &KafkaConfig| transaction::record_secret(config, &wanted);
        let recorded = self.write(record).await?;
        self.state.set_secret(recorded.clone());
        Ok(recorded)
    }
}

#[async_trait]
impl CodeRevocations for KafkaControlTopic {
    fn subscribe_revoked(&self) -> watch::Receiver<RevokedCodes> {
        self.state.revoked.subscribe()
    }

    async fn revoke(
        &self,
        budget: &BudgetId,
        serials: &SerialSet,
    ) -> Result<SerialSet, RevokeError> {
        let (id, wanted) = (budget.clone(), serials.clone());
        let revoke = move |config: &KafkaConfig| transaction::revoke(config, &id, &wanted);
        let revoked = self.write(revoke).await??;
        self.state.add_revoked(budget, StoredRevocations::Understood(revoked.clone()));
        Ok(revoked)
    }
}

#[async_trait]
impl AnnulmentRegisters for KafkaControlTopic {
    async fn annulments(&self, budget: &BudgetId) -> Result<StoredAnnulments, ControlTopicError> {
        if !self.state.is_loaded() {
            return Err(ControlTopicError::Unavailable("they are not loaded yet".to_owned()));
        }
        Ok(self.state.annulments(budget))
    }

    async fn change_annulments(
        &self,
        budget: &BudgetId,
        change: &AnnulmentChange,
    ) -> Result<AnnulmentRegister, AnnulmentChangeError> {
        let (id, wanted) = (budget.clone(), change.clone());
        let change =
            move |config: &KafkaConfig| transaction::change_annulments(config, &id, &wanted);
        // The follower reads the document next: setting it here could replace a later one.
        self.write(change).await?
    }
}

#[async_trait]
impl BudgetDefinitions for KafkaControlTopic {
    fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog.load_full()
    }

    fn is_loaded(&self) -> bool {
        self.state.is_loaded()
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        self.end_reader.read().await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.state.changed.subscribe()
    }

    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError> {
        let definition = self.repeat(|session| self.try_change(session, budget, decide)).await?;
        self.state.update_budget(budget, &StoredBudget::Understood(Budget::clone(&definition)));
        Ok(definition)
    }

    async fn delete(
        &self,
        budget: &BudgetId,
        decide: &Deletion<'_>,
    ) -> Result<(), ControlTopicError> {
        let revision = self.repeat(|session| self.try_delete(session, budget, decide)).await?;
        self.state.update_budget(budget, &StoredBudget::Deleted { revision });
        Ok(())
    }

    /// Writes the current definition again: Kafka compacts no segment to which it has appended nothing since.
    async fn erase_former_definitions(
        &self,
        budget: &BudgetId,
    ) -> Result<Erasure, ControlTopicError> {
        let id = budget.clone();
        self.write(move |config| transaction::repeat_budget(config, &id)).await?;
        Ok(Erasure::AwaitsCompaction)
    }
}

impl KafkaControlTopic {
    /// Repeats a change of a definition until it succeeds, is refused, or takes too long.
    async fn repeat<T, F>(
        &self,
        attempt: impl Fn(WriteSession) -> F,
    ) -> Result<T, ControlTopicError>
    where
        F: Future<Output = Result<Attempt<T>, ControlTopicError>>,
    {
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let mut kept = self.session.lock().await;
        let mut changes = self.changes();
        loop {
            let reused = kept.take();
            let is_reused = reused.is_some();
            let session = match reused {
                Some(session) => Ok(session),
                None => self.blocking(transaction::open).await?,
            };
            let attempted = match session {
                Ok(session) => attempt(session).await?,
                Err(error) => Attempt::Failed(error),
            };
            match attempted {
                Attempt::Written(session, value) => {
                    *kept = Some(session);
                    return Ok(value);
                }
                // Another process may have written since the session has read the topic.
                Attempt::Decided(_) | Attempt::Failed(_) if is_reused => {}
                Attempt::Decided(result) => return result,
                Attempt::Failed(error) if Instant::now() > deadline => {
                    return Err(ControlTopicError::Unavailable(error.to_string()));
                }
                Attempt::Failed(error) => {
                    tracing::debug!(%error, "failed to change a budget definition, retrying");
                    // The change that fenced this one is about to commit: retrying earlier would only fence it.
                    let _ = tokio::time::timeout(jittered_retry_delay(), changes.changed()).await;
                }
            }
        }
    }

    /// Repeats a write until it succeeds or takes too long.
    async fn write<T: Send + 'static>(
        &self,
        step: impl Fn(&KafkaConfig) -> Result<T, WriteError> + Clone + Send + 'static,
    ) -> Result<T, ControlTopicError> {
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let _changing = self.session.lock().await;
        loop {
            match self.blocking(step.clone()).await? {
                Ok(written) => return Ok(written),
                Err(error @ WriteError::Unreadable) => {
                    return Err(ControlTopicError::Unavailable(error.to_string()));
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(ControlTopicError::Unavailable(error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to write to the control topic, retrying");
                    tokio::time::sleep(jittered_retry_delay()).await;
                }
            }
        }
    }

    /// Attempts a change once.
    async fn try_change(
        &self,
        mut session: WriteSession,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Attempt<Arc<Budget>>, ControlTopicError> {
        let next = match decide_change(&session.catalog, budget, decide) {
            Ok(ChangeDecision::Write(next)) => next,
            Ok(ChangeDecision::Keep(current)) => return Ok(Attempt::Decided(Ok(current))),
            Err(refused) => return Ok(Attempt::Decided(Err(refused))),
        };
        // `decide` is borrowed, so only the write runs on the blocking thread.
        self.blocking(move |config| match session.write_budget(config, &next) {
            Ok(()) => Attempt::Written(session, next),
            Err(error) => Attempt::Failed(error),
        })
        .await
    }

    /// Attempts a deletion once, and returns its revision.
    async fn try_delete(
        &self,
        mut session: WriteSession,
        budget: &BudgetId,
        decide: &Deletion<'_>,
    ) -> Result<Attempt<u64>, ControlTopicError> {
        let revision = match decide_deletion(&session.catalog, budget, decide) {
            Ok(revision) => revision,
            Err(refused) => return Ok(Attempt::Decided(Err(refused))),
        };
        let id = budget.clone();
        self.blocking(move |config| match session.write_deletion(config, &id, revision) {
            Ok(()) => Attempt::Written(session, revision),
            Err(error) => Attempt::Failed(error),
        })
        .await
    }
}

/// What became of an attempt to change a definition.
enum Attempt<T> {
    /// Committed. The session knows the new state.
    Written(WriteSession, T),
    /// Decided without a write, by the state that the session knows.
    Decided(Result<T, ControlTopicError>),
    /// Fenced by another change, Kafka is unavailable, or the outcome is unknown.
    Failed(KafkaError),
}

/// What a change makes of a definition.
enum ChangeDecision {
    Write(Arc<Budget>),
    Keep(Arc<Budget>),
}

fn decide_change(
    catalog: &Catalog,
    budget: &BudgetId,
    decide: &Change<'_>,
) -> Result<ChangeDecision, ControlTopicError> {
    let current = catalog.changeable(budget.as_str())?.cloned();
    match (decide(current.as_deref())?, current) {
        (Some(next), _) => Ok(ChangeDecision::Write(Arc::new(catalog.numbered(next)))),
        (None, Some(current)) => Ok(ChangeDecision::Keep(current)),
        (None, None) => Err(ControlTopicError::Unavailable("a change left no definition".into())),
    }
}

/// Returns the revision of the deletion.
fn decide_deletion(
    catalog: &Catalog,
    budget: &BudgetId,
    decide: &Deletion<'_>,
) -> Result<u64, ControlTopicError> {
    let current = catalog.changeable(budget.as_str())?.cloned();
    decide(current.as_deref())?;
    Ok(current.ok_or(ChangeRefused::Unknown)?.revision + 1)
}

/// A random delay, so that processes that fenced each other do not retry in step.
fn jittered_retry_delay() -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().1;
    Duration::from_millis(500 + random % 1_500)
}
