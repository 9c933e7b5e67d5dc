//! The way back: the generation that was being built in another log never answers, and the log that answers takes
//! submissions again. Each step is in the roster before it is done, so that whoever comes next goes on with it.

use std::time::Duration;

use schemas::{Building, Generation, LogRef, Roster, Seal};
use storage::log::kafka::LogMover;
use storage::store::Store;
use tokio::time::{Instant, sleep};

use super::error::RepartitionError;
use crate::generations::{ChangeError, cancel_moved, change, unseal};
use crate::rebuild::delete_retired;

/// So long Kafka is asked to open a log again. Submissions are refused meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

/// What came of giving up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It never answers, and submissions go where they went.
    GivenUp,
    /// It answers already.
    Answers,
}

/// Gives up a generation that is, or was, being built in another log.
///
/// # Errors
/// When a place does not answer: the same again goes on.
pub async fn give_up(
    store: &dyn Store,
    mover: &LogMover,
    generation: Generation,
) -> Result<GivenUp, RepartitionError> {
    loop {
        let roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
        if roster.current.generation == generation {
            return Ok(GivenUp::Answers);
        }
        let Some(Building { record, seal, .. }) =
            roster.building.as_ref().filter(|it| it.record.generation == generation)
        else {
            return Ok(GivenUp::GivenUp);
        };
        let step = match seal {
            Seal::Sealed { .. } => change(store, |roster| unseal(roster, generation)).await,
            Seal::Open | Seal::Opening { .. } => {
                if *seal != Seal::Open {
                    open_again(store, mover, &roster.current.log, Some(&record.log)).await?;
                }
                change(store, |roster| cancel_moved(roster, generation)).await
            }
        };
        match step {
            Ok(next) if next.building.is_none() => {
                clean_up(store, mover, &record.log).await;
                return Ok(GivenUp::GivenUp);
            }
            // Somebody else has taken a step: where it is now, the roster says.
            Ok(_) | Err(ChangeError::Refused(_) | ChangeError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
        sleep(AGAIN).await;
    }
}

/// Opens the log that answers again, if it is sealed though nothing is being built for which it would be: somebody who was
/// late sealed it after it had been given up. Whether it was.
///
/// # Errors
/// When Kafka does not answer.
pub(super) async fn open_if_sealed(
    store: &dyn Store,
    mover: &LogMover,
    roster: &Roster,
) -> Result<bool, RepartitionError> {
    let log = &roster.current.log;
    if roster.building.is_some() || !mover.is_sealed(log).await? {
        return Ok(false);
    }
    open_again(store, mover, log, None).await?;
    Ok(true)
}

/// Opens a log, and seals it once more if it turns out to have been replaced meanwhile: whoever takes submissions and knows
/// nothing of that would go on where nobody counts.
async fn open_again(
    store: &dyn Store,
    mover: &LogMover,
    log: &LogRef,
    like: Option<&LogRef>,
) -> Result<(), RepartitionError> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = mover.unseal(log, like).await {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        tracing::warn!(%error, topic = log.topic, "the log cannot be opened again yet");
        sleep(AGAIN).await;
    }
    let roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    if roster.current.log != *log {
        tracing::error!(topic = log.topic, "another log had taken its place: it is sealed again");
        mover.seal(log).await?;
        return Ok(());
    }
    tracing::info!(topic = log.topic, "the log takes submissions again");
    Ok(())
}

/// The rows and the topic of what was given up are of no use. If they cannot be deleted now, they only take room: the rows are
/// deleted with those of the next one that is retired.
async fn clean_up(store: &dyn Store, mover: &LogMover, log: &LogRef) {
    if let Err(error) = mover.delete(log).await {
        tracing::warn!(%error, topic = log.topic, "the topic of a repartition that was given up is not deleted");
    }
    if let Err(error) = delete_retired(store).await {
        tracing::warn!(%error, "the rows of a generation that was given up are not deleted yet");
    }
}
