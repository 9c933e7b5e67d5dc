//! A rebuild as a job: one new generation, however many workers it takes.
//!
//! Its number is stored before it is begun, and what was found before it answers. Whoever goes on sees in the roster how
//! far it has come: a generation that answers, or did before, was let answer and is not begun again. One that somebody else
//! began and ended before anything was found is forgotten, and another is begun or joined.

use std::time::Duration;

use runtime::clock::now_ms;
use schemas::job::{JobId, JobText, Verdict};
use schemas::{Building, Generation, GenerationRecord, Roster};
use serde::{Deserialize, Serialize};
use storage::log::ReadError;
use storage::store::Store;
use tokio::time::sleep;

use super::{Done, Failure, Held, KindsParts};
use crate::generations::{self, ChangeError, Refused, change};
use crate::rebuild::{Look, RebuildError, compared, delete_retired, goals};

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What whoever goes on has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkpoint {
    /// The generation that this job is about.
    generation: Generation,
    begun: Begun,
    /// What was found: from then on it may answer.
    found: Option<Found>,
}

/// Who began the job's generation, as far as its workers have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Begun {
    /// Nobody had when the job chose its number: whoever has since did so after the job was asked for.
    NotYet,
    ByThisJob,
    /// By this job, which has given it up again, as it could not be built: a retry begins another.
    InVain,
    BySomebodyElse {
        /// Whether that was after the job was asked for, by the clocks of both who wrote when.
        since_asked: bool,
    },
}

impl Begun {
    fn of(building: &Building, job: &Held) -> Self {
        if building.job == Some(job.id()) {
            return Self::ByThisJob;
        }
        Self::BySomebodyElse { since_asked: building.begun_at_ms >= job.job().created_at_ms }
    }
}

impl Checkpoint {
    /// Whether the job is done since its generation answers, whoever let it: everything was derived anew since the job
    /// was asked for.
    fn is_done_once_it_answers(&self, dry_run: bool) -> bool {
        let since_asked = self.begun != Begun::BySomebodyElse { since_asked: false };
        self.found.is_some() || (!dry_run && since_asked)
    }

    /// Whether the job may begin anew, since its generation is over: nothing has come of it that could come twice.
    fn may_be_forgotten(&self, dry_run: bool) -> bool {
        self.found.is_none() && (dry_run || self.begun != Begun::ByThisJob)
    }
}

/// What the comparison came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    before: Generation,
    records: u64,
    differences: u64,
    lines: JobText,
}

/// Where the job's generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    NotBegun,
    Building(Building),
    /// It answers, or did and was rolled back.
    Answered,
    GivenUp,
}

fn place(roster: &Roster, generation: Generation) -> Place {
    let is_it = |record: &GenerationRecord| record.generation == generation;
    if is_it(&roster.current) || roster.previous.as_ref().is_some_and(is_it) {
        return Place::Answered;
    }
    match &roster.building {
        Some(building) if is_it(&building.record) => Place::Building(building.clone()),
        _ if generation >= roster.next => Place::NotBegun,
        _ => Place::GivenUp,
    }
}

pub(super) async fn run(parts: &KindsParts, job: &Held, dry_run: bool) -> Result<Done, Failure> {
    let store = parts.store.as_ref();
    let mut checkpoint = match job.checkpoint::<Checkpoint>()? {
        Some(checkpoint) => checkpoint,
        None => choose(job, &roster(store).await?, dry_run).await?,
    };
    loop {
        let now = roster(store).await?;
        let generation = checkpoint.generation;
        let step = match place(&now, generation) {
            Place::NotBegun => {
                // Nothing is begun that can never be built.
                let log = parts.logs.open(&now.current.log).await?;
                goals(log.as_ref()).await.map_err(|error| failure(error, None))?;
                begin(store, job.id(), generation, dry_run).await
            }
            Place::Building(building)
                if building.dry_run != dry_run || building.record.log != now.current.log =>
            {
                return Err(failure(RebuildError::OtherPurpose(generation), None));
            }
            Place::Building(building) if checkpoint.begun == Begun::NotYet => {
                checkpoint.begun = Begun::of(&building, job);
                job.save(&checkpoint).await?;
                Ok(())
            }
            Place::Building(Building { record, .. }) => {
                let before = now.current.generation;
                compare_and_end(parts, job, &mut checkpoint, record, before, dry_run).await
            }
            Place::Answered if checkpoint.is_done_once_it_answers(dry_run) => {
                return Ok(done(&checkpoint, "answers now"));
            }
            Place::GivenUp if dry_run && checkpoint.found.is_some() => {
                // Whoever retires one next deletes its rows too, if this does not.
                if let Err(error) = delete_retired(store).await {
                    tracing::warn!(%error, "the rows of the dry run are not deleted yet");
                }
                return Ok(done(&checkpoint, "given up: a dry run"));
            }
            Place::Answered | Place::GivenUp if checkpoint.may_be_forgotten(dry_run) => {
                tracing::info!(job = %job.id(), %generation, "somebody else has ended it: another is chosen");
                checkpoint = choose(job, &now, dry_run).await?;
                Ok(())
            }
            Place::Answered | Place::GivenUp => {
                return Err(failure(RebuildError::Gone(generation), None));
            }
        };
        match step {
            Ok(()) => {}
            // Where it is now is seen in the roster: it may have been this job's own worker before.
            Err(Step::Moved) => sleep(LOOK_AGAIN).await,
            Err(Step::Failed(failed)) => return Err(failed),
        }
    }
}

pub(super) async fn give_up(
    parts: &KindsParts,
    job: &Held,
    dry_run: bool,
) -> Result<Option<Done>, Failure> {
    let store = parts.store.as_ref();
    let Some(checkpoint) = job.checkpoint::<Checkpoint>()? else { return Ok(None) };
    loop {
        match place(&roster(store).await?, checkpoint.generation) {
            Place::Answered if checkpoint.is_done_once_it_answers(dry_run) => {
                return Ok(Some(done(&checkpoint, "answers now")));
            }
            // Not one that somebody else had begun.
            Place::Building(building) if building.job == Some(job.id()) => {
                if !cancel(store, checkpoint.generation).await? {
                    sleep(LOOK_AGAIN).await;
                }
            }
            Place::Building(_) | Place::NotBegun | Place::Answered => return Ok(None),
            Place::GivenUp => {
                delete_retired(store).await.map_err(|error| failure(error, None))?;
                return Ok(None);
            }
        }
    }
}

/// Gives up a generation of this job's own: whether it was that, and nobody else was faster with something else.
async fn cancel(store: &dyn Store, generation: Generation) -> Result<bool, Failure> {
    match change(store, |roster| generations::cancel(roster, generation)).await {
        Ok(_) => Ok(true),
        Err(ChangeError::Refused(_)) => Ok(false),
        Err(error) => Err(failure(error.into(), None)),
    }
}

/// Why a step was not taken.
enum Step {
    /// The roster is not what it was.
    Moved,
    Failed(Failure),
}

impl From<Failure> for Step {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn roster(store: &dyn Store) -> Result<Roster, Failure> {
    let roster = store.roster().await?;
    roster.ok_or_else(|| failure(ChangeError::NoRoster.into(), None))
}

/// Chooses the generation that is being built, if it is for the same purpose, or the next; and stores which.
async fn choose(job: &Held, roster: &Roster, dry_run: bool) -> Result<Checkpoint, Failure> {
    let (generation, begun) = match &roster.building {
        None => (roster.next, Begun::NotYet),
        Some(building)
            if building.dry_run == dry_run && building.record.log == roster.current.log =>
        {
            (building.record.generation, Begun::of(building, job))
        }
        Some(building) => {
            return Err(failure(RebuildError::OtherPurpose(building.record.generation), None));
        }
    };
    let chosen = Checkpoint { generation, begun, found: None };
    job.save(&chosen).await?;
    Ok(chosen)
}

/// Begins exactly this generation.
async fn begin(
    store: &dyn Store,
    job: JobId,
    generation: Generation,
    dry_run: bool,
) -> Result<(), Step> {
    let begin = |roster: &Roster| match place(roster, generation) {
        Place::NotBegun => generations::begin_for(job, roster, dry_run, now_ms()),
        _ => Err(Refused::NotBuilding(generation)),
    };
    match change(store, begin).await {
        Ok(_) => Ok(()),
        Err(ChangeError::Refused(Refused::NotBuilding(_)) | ChangeError::Unknown) => {
            Err(Step::Moved)
        }
        Err(error) => Err(failure(error.into(), None).into()),
    }
}

/// Waits until it is compared, stores what was found, and lets it answer or, of a dry run, gives it up.
async fn compare_and_end(
    parts: &KindsParts,
    job: &Held,
    checkpoint: &mut Checkpoint,
    record: GenerationRecord,
    before: Generation,
    dry_run: bool,
) -> Result<(), Step> {
    let (store, generation) = (parts.store.as_ref(), record.generation);
    let failed = |error| Step::Failed(failure(error, Some(generation)));
    let saw = |look: &Look| {
        let trouble = look.troubles.first().map(|it| format!("; {it}")).unwrap_or_default();
        let line = format!("{} of {} records folded anew{trouble}", look.done, look.of);
        job.tell(look.done, look.of, line);
    };
    let log = parts.logs.open(&record.log).await.map_err(Failure::from)?;
    let goals = match goals(log.as_ref()).await {
        Ok(goals) => goals,
        Err(error) => return Err(cannot_be_built(store, job, checkpoint, error).await?.into()),
    };
    let (records, differences) = match compared(store, &record, before, &goals, saw).await {
        Ok(compared) => compared,
        Err(RebuildError::Gone(_)) => return Err(Step::Moved),
        Err(error) => return Err(failed(error)),
    };
    let lines = differences.join("\n").into();
    checkpoint.found =
        Some(Found { before, records, differences: differences.len() as u64, lines });
    job.save(&*checkpoint).await?;
    let ended = if dry_run {
        change(store, |roster| generations::cancel(roster, generation)).await
    } else {
        change(store, |roster| generations::flip(roster, generation)).await
    };
    match ended {
        Ok(_) => Ok(()),
        Err(ChangeError::Refused(Refused::NotBuilding(_)) | ChangeError::Unknown) => {
            Err(Step::Moved)
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// The log does not tell how far to build. If it never will, this job's own generation is given up: nobody else would.
async fn cannot_be_built(
    store: &dyn Store,
    job: &Held,
    checkpoint: &mut Checkpoint,
    error: RebuildError,
) -> Result<Failure, Failure> {
    let failed = failure(error, None);
    let is_own = checkpoint.begun == Begun::ByThisJob;
    if is_own
        && matches!(failed, Failure::InVain(_))
        && cancel(store, checkpoint.generation).await?
    {
        checkpoint.begun = Begun::InVain;
        job.save(&*checkpoint).await?;
        if let Err(error) = delete_retired(store).await {
            tracing::warn!(%error, "the rows of a generation that was given up are not deleted yet");
        }
    }
    Ok(failed)
}

fn done(checkpoint: &Checkpoint, outcome: &str) -> Done {
    let Checkpoint { generation, found, .. } = checkpoint;
    let Some(Found { before, records, differences, lines }) = found else {
        // Whoever let it answer compared it before, and told what was found.
        let result =
            format!("generation {generation} {outcome}: somebody else compared it and let it");
        return Done { verdict: Verdict::Clean, result: result.into() };
    };
    let verdict = if *differences == 0 { Verdict::Clean } else { Verdict::Different };
    let result = format!(
        "generation {generation} {outcome}; compared with {before}: {records} records, {differences} differences\n{lines}"
    );
    Done { verdict, result: result.trim_end().into() }
}

/// Why it came to nothing; and that a generation is built on all the same, if one is.
fn failure(error: RebuildError, built: Option<Generation>) -> Failure {
    let mut reason = error.to_string();
    if let Some(generation) = built {
        reason.push_str(&format!(
            " (generation {generation} is built on: `generations cancel` gives it up)"
        ));
    }
    match error {
        RebuildError::Store(error) | RebuildError::Change(ChangeError::Store(error)) => {
            error.into()
        }
        RebuildError::Change(ChangeError::Refused(_))
        | RebuildError::Gone(_)
        | RebuildError::NoBeginning(..)
        | RebuildError::Read(ReadError::Missing(_) | ReadError::Damaged(_)) => {
            Failure::InVain(reason)
        }
        RebuildError::Read(ReadError::Unavailable(_))
        | RebuildError::Change(ChangeError::Unknown | ChangeError::NoRoster)
        | RebuildError::OtherPurpose(_)
        | RebuildError::Stuck(_) => Failure::Again(reason),
    }
}
