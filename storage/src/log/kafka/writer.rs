//! Submissions and dead letters on their way into their topics.
//!
//! **The log may be moved to another topic meanwhile.** The broker then refuses what goes into the old one (it is sealed),
//! and everyone is told where submissions go from now on. What was refused is held for some seconds, and goes to the new
//! topic as soon as that is known; after that it is refused to whoever brought it. What a sealed topic
//! refuses is not in it, with one exception that does no harm: an append whose acknowledgement was lost, and which was sent
//! again after the topic was sealed, may be in both topics, as two records with one submission id.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rdkafka::message::{Header, OwnedHeaders};
use schemas::{LogNumber, LogRef, Receipt, partition_for};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::KafkaConfig;
use super::producer::{IdempotentProducer, Outgoing};
use super::topics::{TopicError, ensure_topics};
use crate::log::{AppendError, DeadLetter, DeadLetters, LogWriter, NewRecord};

/// How long what a sealed log has refused is held: longer than the last step of a repartition usually takes, and so short
/// that whoever waits, and the memory of submission ids, waits for the answer.
pub const SEALED_PATIENCE: Duration = Duration::from_secs(6);
/// Before a sealed log is tried again the first time: it may have been opened again. Twice as long before each next time,
/// as all that is held is sent to brokers that have other things to do.
const SEALED_PAUSE: Duration = Duration::from_millis(100);

/// The topic of submissions, for appending: whichever is the last that is known.
pub struct KafkaLog {
    config: KafkaConfig,
    target: ArcSwap<Target>,
    moves: watch::Receiver<Option<LogRef>>,
    /// Held by the one who follows a move.
    following: Mutex<()>,
}

/// Where records go.
struct Target {
    log: LogRef,
    producer: Arc<IdempotentProducer>,
}

impl Target {
    fn start(config: &KafkaConfig, log: LogRef) -> Result<Self, TopicError> {
        Ok(Self { producer: start(config, log.topic.clone())?, log })
    }

    async fn append<'r>(
        &self,
        records: impl ExactSizeIterator<Item = &'r NewRecord> + Clone,
    ) -> Vec<Result<Receipt, AppendError>> {
        let partition = |record: &NewRecord| partition_for(&record.key, self.log.partitions);
        let outgoing = records.clone().map(|record| Outgoing {
            partition: partition(record).0,
            key: record.key.as_bytes(),
            value: &record.value,
            headers: None,
        });
        let offsets = self.producer.send(outgoing).await;
        let receipt = |(record, offset): (_, Result<_, _>)| {
            offset.map(|offset| Receipt {
                log: self.log.number,
                partition: partition(record),
                offset,
            })
        };
        records.zip(offsets).map(receipt).collect()
    }
}

impl KafkaLog {
    /// Creates the topics if they are absent and starts a producer into `log`, or into the one to which it is moved: `moves`
    /// says that then.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic has another partition count than the log.
    pub async fn open(
        config: &KafkaConfig,
        log: &LogRef,
        moves: watch::Receiver<Option<LogRef>>,
    ) -> Result<Self, TopicError> {
        ensure_topics(config, log).await?;
        Self::open_unchecked(config, log, moves)
    }

    /// Starts a producer without asking Kafka anything: the topics must exist and be right.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open_unchecked(
        config: &KafkaConfig,
        log: &LogRef,
        moves: watch::Receiver<Option<LogRef>>,
    ) -> Result<Self, TopicError> {
        let target = ArcSwap::from_pointee(Target::start(config, log.clone())?);
        Ok(Self { config: config.clone(), target, moves, following: Mutex::default() })
    }

    /// Where records go now.
    fn target(&self) -> Arc<Target> {
        let target = self.target.load_full();
        match &*self.moves.borrow() {
            Some(log) if log.number > target.log.number => self.follow(log),
            _ => target,
        }
    }

    fn follow(&self, log: &LogRef) -> Arc<Target> {
        let _alone = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.target.load_full();
        if target.log.number >= log.number {
            return target;
        }
        match Target::start(&self.config, log.clone()) {
            Ok(next) => {
                tracing::info!(
                    from = target.log.topic,
                    to = log.topic,
                    "submissions go to another topic now"
                );
                let next = Arc::new(next);
                self.target.store(Arc::clone(&next));
                next
            }
            Err(error) => {
                tracing::error!(%error, topic = log.topic, "the log's new topic cannot be written to");
                target
            }
        }
    }

    /// Waits until what a sealed log has refused may be sent again: to the next log, or, after a pause, to the same. `false`
    /// if that does not come in time.
    async fn may_go_on(&self, sealed: LogNumber, pause: Duration, deadline: Instant) -> bool {
        // Also where the next log is known, and cannot be written to.
        if Instant::now() >= deadline {
            return false;
        }
        let mut moves = self.moves.clone();
        let is_next = |log: &Option<LogRef>| log.as_ref().is_some_and(|log| log.number > sealed);
        let moved = async {
            if moves.wait_for(is_next).await.is_err() {
                // Nobody will ever say.
                std::future::pending::<()>().await;
            }
        };
        let again = Instant::now() + pause;
        timeout_at(again.min(deadline), moved).await.is_ok() || again < deadline
    }
}

pub(super) fn start(
    config: &KafkaConfig,
    topic: String,
) -> Result<Arc<IdempotentProducer>, TopicError> {
    IdempotentProducer::new(config, topic).map_err(|error| TopicError::Unavailable {
        brokers: config.brokers.clone(),
        reason: error.to_string(),
    })
}

#[async_trait]
impl LogWriter for KafkaLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        let deadline = Instant::now() + SEALED_PATIENCE;
        let mut pause = SEALED_PAUSE;
        let mut target = self.target();
        let mut answers = target.append(records.iter()).await;
        while answers.contains(&Err(AppendError::Sealed))
            && self.may_go_on(target.log.number, pause, deadline).await
        {
            pause *= 2;
            target = self.target();
            let refused =
                |(answer, _): &(&mut Result<_, _>, _)| **answer == Err(AppendError::Sealed);
            let refused: Vec<_> = answers.iter_mut().zip(&records).filter(refused).collect();
            let again = target.append(refused.iter().map(|(_, record)| *record)).await;
            for ((answer, _), again) in refused.into_iter().zip(again) {
                *answer = again;
            }
        }
        answers
    }

    fn available(&self) -> Result<(), AppendError> {
        self.target.load().producer.available()
    }
}

/// Of a key and of a value at most so much is put into a letter, so that it is never more than a broker takes. The
/// whole record is where the letter says that it came from.
const LARGEST_PART: usize = 400_000;

/// The topic of dead letters. A letter carries its source in the headers `log`, `partition`, `offset` and `reason`, and the
/// record's lengths in `key_bytes` and `value_bytes`.
pub struct KafkaDeadLetters {
    producer: Arc<IdempotentProducer>,
}

impl KafkaDeadLetters {
    /// Starts a producer. The topic must exist: [`KafkaLog::open`] and [`super::KafkaSource::open`] see to it.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        Ok(Self { producer: start(config, config.dead_letters_topic())? })
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let outgoing = letters.iter().map(|letter| Outgoing {
            partition: 0,
            key: letter.key.get(..LARGEST_PART).unwrap_or(&letter.key),
            value: letter.value.get(..LARGEST_PART).unwrap_or(&letter.value),
            headers: Some(headers(letter)),
        });
        self.producer.send(outgoing).await.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
    }
}

fn headers(letter: &DeadLetter) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "log", value: Some(&letter.place.log.to_string()) })
        .insert(Header { key: "partition", value: Some(&letter.place.partition.to_string()) })
        .insert(Header { key: "offset", value: Some(&letter.place.offset.to_string()) })
        .insert(Header { key: "reason", value: Some(&letter.reason) })
        .insert(Header { key: "key_bytes", value: Some(&letter.key.len().to_string()) })
        .insert(Header { key: "value_bytes", value: Some(&letter.value.len().to_string()) })
}
