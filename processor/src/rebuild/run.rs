//! A rebuild from the first step to the flip.

use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{Building, Generation, GenerationRecord, PartitionId, Position, Roster};
use storage::log::{LogReader, ReadError};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::time::Instant;

use super::watch::{Look, Stage, look};
use crate::generations::{ChangeError, begin, cancel, change, deleted, flip};

const INTERVAL: Duration = Duration::from_millis(200);
/// So long a partition that does not come on is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a rebuild did not come to its end. What was begun goes on: the same again watches it.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log does not tell where it ends.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A step could not be taken.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The store holds what cannot be, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else has done something else.
    #[error("somebody else has given up generation {0}, or let it answer")]
    Gone(Generation),
    /// A dry run is on, or the other way round.
    #[error("generation {0} is built for another purpose: wait for it, or give it up")]
    OtherPurpose(Generation),
    /// There is nothing to rebuild from.
    #[error(
        "partition {0} of the log begins at {1}: what came before is gone, and no archive of it leads there (archive.dir)"
    )]
    NoBeginning(PartitionId, Position),
    /// It does not come on.
    #[error("it does not come on: {0}")]
    Stuck(String),
}

/// What came of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was built.
    pub generation: Generation,
    /// What it was compared with.
    pub before: Generation,
    /// Records that it came to at least.
    pub records: u64,
    /// Whether it was given up then.
    pub dry_run: bool,
    /// What differed, a line each.
    pub differences: Vec<String>,
}

/// Begins a rebuild, or joins one that is on, and brings it to its end: lets the new generation answer or, of a dry run,
/// gives it up. `saw` is told of every look at it.
///
/// # Errors
/// When it does not come to its end.
pub async fn rebuild(
    store: &dyn Store,
    log: &dyn LogReader,
    dry_run: bool,
    saw: impl Fn(&Look),
) -> Result<Rebuilt, RebuildError> {
    let goals = goals(log).await?;
    let (building, before) = begin_or_join(store, dry_run).await?;
    let generation = building.record.generation;
    let (records, differences) = compared(store, &building.record, before, &goals, saw).await?;
    if dry_run {
        change(store, |roster| cancel(roster, generation)).await?;
        // What was found is worth telling all the same; whoever retires one next deletes these rows too.
        if let Err(error) = delete_retired(store).await {
            tracing::warn!(%error, "the rows of the dry run are not deleted yet");
        }
    } else {
        change(store, |roster| flip(roster, generation)).await?;
    }
    Ok(Rebuilt { generation, before, records, dry_run, differences })
}

/// The generation that is built, which may have been begun before; and the one that answers.
async fn begin_or_join(
    store: &dyn Store,
    dry_run: bool,
) -> Result<(Building, Generation), RebuildError> {
    let now = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    let begun_at_ms = now_ms();
    let roster = match now.building {
        Some(_) => now,
        None => change(store, |roster| begin(roster, dry_run, begun_at_ms)).await?,
    };
    let answering = roster.current.generation;
    match roster.building {
        Some(building)
            if building.dry_run == dry_run && building.record.log == roster.current.log =>
        {
            Ok((building, answering))
        }
        Some(building) => Err(RebuildError::OtherPurpose(building.record.generation)),
        None => Err(RebuildError::Gone(roster.next)),
    }
}

/// Where each partition has to come: where the log ends now. It has to have its beginning.
pub(crate) async fn goals(log: &dyn LogReader) -> Result<Vec<Position>, RebuildError> {
    let mut goals = Vec::new();
    for partition in log.partitions().partitions() {
        let bounds = log.bounds(partition).await?;
        if bounds.low > Position::START {
            return Err(RebuildError::NoBeginning(partition, bounds.low));
        }
        goals.push(bounds.high);
    }
    Ok(goals)
}

/// Waits until everything has been compared: so many records, and what differs.
pub(crate) async fn compared(
    store: &dyn Store,
    record: &GenerationRecord,
    answering: Generation,
    goals: &[Position],
    saw: impl Fn(&Look),
) -> Result<(u64, Vec<String>), RebuildError> {
    let mut in_trouble = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let reports = match store.reports(record.generation, record.log.partitions).await {
            Ok(reports) => reports,
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        still_built(store, record.generation).await?;
        let seen = look(goals, &reports, answering, now_ms());
        saw(&seen);
        match seen.stage {
            Stage::Done(differences) => return Ok((seen.of, differences)),
            Stage::UnderWay if seen.troubles.is_empty() => in_trouble = None,
            Stage::UnderWay => {
                let since = *in_trouble.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(RebuildError::Stuck(seen.troubles.join("; ")));
                }
            }
        }
    }
}

async fn still_built(store: &dyn Store, generation: Generation) -> Result<(), RebuildError> {
    match store.roster().await {
        Ok(Some(Roster { building: Some(building), .. }))
            if building.record.generation == generation =>
        {
            Ok(())
        }
        Ok(_) => Err(RebuildError::Gone(generation)),
        // It is asked again soon.
        Err(StoreError::Unavailable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes the rows of everyone that was given up: also of those where somebody has not come to the end of it.
///
/// # Errors
/// When the store does not answer: the same again goes on.
pub async fn delete_retired(store: &dyn Store) -> Result<Roster, RebuildError> {
    let mut roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    for GenerationRecord { generation, log } in roster.retired.clone() {
        for partition in log.partitions.partitions() {
            store.delete_people(PartitionRef { generation, partition }).await?;
        }
        roster = change(store, |roster| Ok(deleted(roster, generation))).await?;
    }
    Ok(roster)
}
