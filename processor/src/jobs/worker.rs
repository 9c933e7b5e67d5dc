//! The loop: looks at all jobs, claims the one whose turn it is, runs it, and ends it. One at a time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::job::{self, Attempt, Job, JobName, JobRefused, JobState, Turns};
use storage::jobs::{JobStore, delete_surplus};
use storage::store::{Conditional, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::held::Held;
use super::metrics::{Ending, JobMetrics};
use super::{Done, Failure, Runner};

/// So long a job's row may stand still, by the clock of whoever looks at it, before its worker counts as gone.
pub const LEASE: Duration = Duration::from_secs(10);

/// How often whoever runs a job says so.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How often all jobs are looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long handing a job back may keep a process from ending; who is not in a hurry has [`LEASE`] to write a job's end.
const HAND_BACK_PATIENCE: Duration = Duration::from_secs(3);

/// Milliseconds since 1970.
pub(super) type NowMs = fn() -> u64;

/// What a worker works with.
pub struct WorkerParts {
    /// Where jobs rest.
    pub jobs: Arc<dyn JobStore>,
    /// Who does them.
    pub runner: Arc<dyn Runner>,
    /// A name that no other process ever has.
    pub name: JobName,
    /// Where it is told how they come on.
    pub metrics: JobMetrics,
    /// Milliseconds since 1970: when a job that failed is due again, and what people are shown.
    pub now_ms: fn() -> u64,
}

/// Does jobs, one at a time.
pub struct Worker {
    parts: WorkerParts,
    board: Board,
    turns: Turns,
}

/// How the try at a job came to its end here.
enum End {
    Ran(Result<Done, Failure>),
    GaveUp(Result<Option<Done>, Failure>),
    Stopped,
}

/// Whether a job was begun.
enum Begun {
    Yes(Box<Held>),
    /// Somebody else was faster: look again.
    Moved,
    /// There is none.
    Nothing,
}

impl Worker {
    /// A worker that has no job yet.
    pub fn new(parts: WorkerParts) -> Self {
        let board = Board::new(
            Arc::clone(&parts.jobs),
            parts.name.clone(),
            parts.metrics.clone(),
            parts.now_ms,
        );
        Self { parts, board, turns: Turns::default() }
    }

    /// Works until told to stop. A job that is not done then is handed back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            while !stop.is_cancelled() {
                match self.begin_next(&stop).await {
                    Ok(Begun::Yes(held)) => self.work(&held, &stop).await,
                    Ok(Begun::Moved) => {}
                    Ok(Begun::Nothing) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the background jobs cannot be seen or begun now");
                        break;
                    }
                }
            }
        }
    }

    /// Begins the job whose turn it is.
    async fn begin_next(&mut self, stop: &CancellationToken) -> Result<Begun, StoreError> {
        let Some(jobs) = stop.run_until_cancelled(self.board.look()).await else {
            return Ok(Begun::Nothing);
        };
        let (jobs, now_ms) = (jobs?, (self.parts.now_ms)());
        let is_mine = |job: &&Job| job.running().is_some_and(|it| it.worker == self.parts.name);
        if let Some(mine) = jobs.iter().find(is_mine) {
            let going_on = self.go_on(mine.clone());
            return Ok(stop.run_until_cancelled(going_on).await.unwrap_or(Begun::Nothing));
        }
        let ready: Vec<&Job> = jobs.iter().filter(|job| self.board.is_ready(job, now_ms)).collect();
        let Some(chosen) = self.turns.next(&ready) else { return Ok(Begun::Nothing) };
        let begun = match chosen.state {
            JobState::Running { .. } => job::take_over(chosen, &self.parts.name, now_ms),
            _ => job::claim(chosen, &self.parts.name, now_ms),
        };
        // It was ready as it was seen; it is put in the place of exactly that.
        let Ok(begun) = begun else { return Ok(Begun::Nothing) };
        if self.parts.jobs.change_job(&begun).await? == Conditional::Refused {
            return Ok(Begun::Moved);
        }
        self.turns.took(chosen, &ready);
        let (id, kind, attempt) = (begun.id, &begun.kind, begun.attempts());
        if let JobState::Dead { reason, .. } = &begun.state {
            tracing::error!(job = %id, %kind, %reason, "a job is dead");
            self.parts.metrics.ended(kind, Ending::Dead, Duration::ZERO);
            delete_surplus(self.parts.jobs.as_ref()).await;
            return Ok(Begun::Moved);
        }
        let taken_over = chosen.running().map(|former| former.worker.as_str());
        tracing::info!(job = %id, %kind, priority = %begun.priority, attempt, taken_over, "began a job");
        Ok(self.hold(begun))
    }

    /// Goes on with a job that this process has, although it does not run here: its claim, or its end, had no answer.
    async fn go_on(&self, mine: Job) -> Begun {
        let Begun::Yes(held) = self.hold(mine) else { return Begun::Nothing };
        match held.beat().await {
            Ok(()) => Begun::Yes(held),
            Err(error) => {
                tracing::debug!(job = %held.job().id, %error, "it is this process's no more");
                Begun::Nothing
            }
        }
    }

    fn hold(&self, job: Job) -> Begun {
        let held = Held::new(Arc::clone(&self.parts.jobs), job, self.parts.now_ms);
        held.map_or(Begun::Nothing, |held| Begun::Yes(Box::new(held)))
    }

    /// Runs a job to its end, or until it is lost, cancelled, or this process has to stop.
    async fn work(&self, held: &Held, stop: &CancellationToken) {
        let (began, kind) = (Instant::now(), held.kind());
        let runner = self.parts.runner.as_ref();
        let doing = async {
            tokio::select! {
                biased;
                () = held.cancelling() => {}
                ran = caught(runner.run(held)) => return End::Ran(ran),
            }
            End::GaveUp(caught(runner.give_up(held)).await)
        };
        let end = tokio::select! {
            biased;
            () = held.keep_alive() => End::Ran(Err(Failure::Lost)),
            () = stop.cancelled() => End::Stopped,
            end = doing => end,
            never = self.board.keep_looking() => match never {},
        };
        let ending = self.end(held, end).await;
        self.parts.metrics.ended(kind, ending, began.elapsed());
    }

    /// Writes how it came to its end.
    async fn end(&self, held: &Held, end: End) -> Ending {
        let id = held.job().id;
        let (ending, written) = match end {
            End::Stopped => {
                (Ending::HandedBack, write(held, HAND_BACK_PATIENCE, job::hand_back).await)
            }
            End::Ran(Ok(done)) | End::GaveUp(Ok(Some(done))) => {
                let Done { verdict, result } = done;
                tracing::info!(job = %id, verdict = verdict.name(), %result, "a job is done");
                let succeed = |job: &Job, attempt: &Attempt, now_ms| {
                    job::succeed(job, attempt, verdict, result.clone(), now_ms)
                };
                (Ending::Done(verdict), write(held, LEASE, succeed).await)
            }
            End::GaveUp(Ok(None)) => (Ending::Cancelled, write(held, LEASE, job::cancelled).await),
            End::Ran(Err(Failure::Lost)) | End::GaveUp(Err(Failure::Lost)) => {
                (Ending::Lost, Err(Failure::Lost))
            }
            End::Ran(Err(Failure::Again(error))) | End::GaveUp(Err(Failure::Again(error))) => {
                tracing::warn!(job = %id, error, "a job failed");
                let random = uuid::Uuid::new_v4().as_u64_pair().0;
                let fail = |job: &Job, attempt: &Attempt, now_ms| {
                    job::fail(job, attempt, error.as_str().into(), random, now_ms)
                };
                (Ending::Failed, write(held, LEASE, fail).await)
            }
            End::Ran(Err(Failure::InVain(reason))) | End::GaveUp(Err(Failure::InVain(reason))) => {
                let park = |job: &Job, attempt: &Attempt, now_ms| {
                    job::park(job, attempt, reason.as_str().into(), now_ms)
                };
                (Ending::Dead, write(held, LEASE, park).await)
            }
        };
        match written {
            Ok(Job { state: JobState::Dead { reason, .. }, .. }) => {
                tracing::error!(job = %id, %reason, "a job is dead");
                Ending::Dead
            }
            Ok(_) => ending,
            Err(Failure::Lost) => {
                tracing::warn!(job = %id, "a job was lost: somebody else has it, or may have it by now");
                Ending::Lost
            }
            // Nobody knows of its end: this process goes on with it once it sees it again, or another one does.
            Err(error) => {
                tracing::warn!(job = %id, %error, "the end of a job could not be written");
                Ending::Lost
            }
        }
    }
}

/// Writes the last step of a try, within a time.
async fn write(
    held: &Held,
    patience: Duration,
    step: impl Fn(&Job, &Attempt, u64) -> Result<Job, JobRefused>,
) -> Result<Job, Failure> {
    let late = || Failure::Again("the store did not answer in time".to_owned());
    timeout(patience, held.step(step)).await.unwrap_or_else(|_| Err(late()))
}

/// A bug in one kind of job must not end all of them silently.
async fn caught<T>(running: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let bug = |_| Err(Failure::Again("a bug: it panicked, see the log".to_owned()));
    AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(bug)
}
