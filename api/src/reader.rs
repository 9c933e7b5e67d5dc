//! Reads answers for clients: from memory if it is fresh, else along the chain, else the last known one; and waits
//! for a submission to be counted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use schemas::Receipt;
use storage::definitions::Definitions;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::chain::{News, Tier};
use crate::consistency::AtLeast;
use crate::metrics::ApiMetrics;
use crate::tiers::memory::{Memory, Shown, Slot};
use crate::waiters::Waiters;
use crate::walk::{Answered, Walker};

/// While it waits, a reader looks behind memory this often when news flows, in case one was lost,
const LOOK_WITH_NEWS: Duration = Duration::from_millis(250);
/// and this often when none does.
const LOOK_WITHOUT_NEWS: Duration = Duration::from_millis(25);

/// Which tier an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Served {
    /// Memory, by itself.
    Memory,
    /// A tier behind it.
    By(Tier),
    /// Memory, because no tier behind it had anything.
    Stale,
}

/// An answer for a client.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The answer and its age.
    pub shown: Shown,
    /// Where it came from.
    pub served: Served,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No tier answers, and none ever did.
    #[error("nothing is known of this budget's totals at the moment")]
    Unknown,
    /// The submission is not counted in what can be read.
    #[error("the submission is not counted yet")]
    NotYetVisible,
    /// Too many readers wait already.
    #[error("too many reads wait for submissions at once")]
    TooManyWaiters,
}

/// Reads for clients.
pub struct Reader {
    memory: Arc<Memory>,
    walker: Arc<Walker>,
    definitions: Arc<dyn Definitions>,
    waiters: Arc<Waiters>,
    metrics: ApiMetrics,
}

impl Reader {
    /// A reader over a memory and the chain behind it.
    pub fn new(
        memory: Arc<Memory>,
        walker: Arc<Walker>,
        definitions: Arc<dyn Definitions>,
        waiters: Arc<Waiters>,
        metrics: ApiMetrics,
    ) -> Self {
        Self { memory, walker, definitions, waiters, metrics }
    }

    /// The place of a budget's answer; `None` when there is no such budget.
    pub fn slot(&self, id: &str) -> Option<Arc<Slot>> {
        self.memory.slot(id).or_else(|| {
            let catalog = self.definitions.catalog();
            catalog.get(id).map(|budget| self.memory.open_slot(&budget.id))
        })
    }

    /// One budget's answer, if memory has a fresh one.
    pub fn read_memory(&self, slot: &Slot) -> Option<Reading> {
        let reading = self.fresh(slot)?;
        self.metrics.memory_hits.inc();
        Some(reading)
    }

    /// One budget's answer.
    ///
    /// # Errors
    /// When nothing was ever known.
    pub async fn read(&self, slot: &Arc<Slot>) -> Result<Reading, NoAnswer> {
        let slots = std::slice::from_ref(slot);
        self.read_all(slots).await?.pop().ok_or(NoAnswer::Unknown)
    }

    /// Several budgets' answers; those that memory cannot give are fetched together.
    ///
    /// # Errors
    /// When nothing was ever known of one of them.
    pub async fn read_all(&self, slots: &[Arc<Slot>]) -> Result<Vec<Reading>, NoAnswer> {
        let answer = self.look(slots).await;
        self.count(slots, &answer);
        answer
    }

    /// The budgets' answers once they count the submission.
    ///
    /// # Errors
    /// When it is not counted in time, too many wait already, or nothing was ever known.
    pub async fn read_at_least(
        &self,
        slots: &[Arc<Slot>],
        at_least: AtLeast,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let answer = self.look_until_counted(slots, at_least).await;
        self.count(slots, &answer);
        answer
    }

    /// Counts what memory was to one client: one outcome for each budget that it asked for.
    fn count(&self, slots: &[Arc<Slot>], answer: &Result<Vec<Reading>, NoAnswer>) {
        let Ok(readings) = answer else {
            return self.metrics.memory_misses.inc_by(slots.len() as u64);
        };
        for reading in readings {
            match reading.served {
                Served::Memory => self.metrics.memory_hits.inc(),
                Served::By(_) => self.metrics.memory_misses.inc(),
                Served::Stale => self.metrics.memory_stale.inc(),
            }
        }
    }

    /// What memory gives, and for the rest what the chain does.
    async fn look(&self, slots: &[Arc<Slot>]) -> Result<Vec<Reading>, NoAnswer> {
        let mut readings: Vec<Option<Reading>> =
            slots.iter().map(|slot| self.fresh(slot)).collect();
        let missing: Vec<Arc<Slot>> = slots
            .iter()
            .zip(&readings)
            .filter(|(_, reading)| reading.is_none())
            .map(|(slot, _)| Arc::clone(slot))
            .collect();
        let mut fetched = self.walk(&missing, None).await?.into_iter();
        for reading in readings.iter_mut().filter(|reading| reading.is_none()) {
            *reading = fetched.next();
        }
        Ok(readings.into_iter().flatten().collect())
    }

    async fn look_until_counted(
        &self,
        slots: &[Arc<Slot>],
        AtLeast { receipt, wait }: AtLeast,
    ) -> Result<Vec<Reading>, NoAnswer> {
        if let Some(readings) = self.if_counted(receipt, slots, self.look(slots).await?).await {
            return Ok(readings);
        }
        // What memory trusts may be a moment old: look behind it before saying no.
        let look_behind = async || {
            let readings = self.walk(slots, Some(Instant::now())).await?;
            Ok(self.if_counted(receipt, slots, readings).await)
        };
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else {
            return look_behind().await?.ok_or(NoAnswer::NotYetVisible);
        };
        let _waiting = self.waiters.enter().ok_or(NoAnswer::TooManyWaiters)?;
        let end = Instant::now() + wait;
        let mut moves: Vec<_> = slots.iter().map(|slot| slot.moves()).collect();
        while Instant::now() < end {
            let Ok(looked) = timeout_at(end, look_behind()).await else { break };
            if let Some(readings) = looked? {
                return Ok(readings);
            }
            let next_look = end.min(Instant::now() + self.time_to_next_look());
            while timeout_at(next_look, any_move(&mut moves)).await.is_ok() {
                let moved = self.in_memory(slots, Served::Memory)?;
                let counted = timeout_at(end, self.if_counted(receipt, slots, moved)).await;
                if let Ok(Some(readings)) = counted {
                    return Ok(readings);
                }
            }
        }
        Err(NoAnswer::NotYetVisible)
    }

    /// The readings, if they count the submission.
    ///
    /// A receipt does not say whose submission it is, and each budget is published by itself: one may be past the
    /// receipt while the submission's own is still shown without it. They were committed together, though. So once
    /// any counts it, the committed totals have it wherever it belongs, and nothing less than those will do.
    async fn if_counted(
        &self,
        receipt: Receipt,
        slots: &[Arc<Slot>],
        readings: Vec<Reading>,
    ) -> Option<Vec<Reading>> {
        let counts = |reading: &Reading| reading.shown.answer.includes(receipt);
        if readings.iter().all(counts) {
            return Some(readings);
        }
        if !readings.iter().any(counts) || !self.walker.catch_up(slots).await {
            return None;
        }
        let readings = self.in_memory(slots, Served::By(Tier::Summary)).ok()?;
        readings.iter().any(counts).then_some(readings)
    }

    async fn walk(
        &self,
        slots: &[Arc<Slot>],
        not_before: Option<Instant>,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let answered = self.walker.walk(slots, not_before).await;
        slots.iter().zip(answered).map(|(slot, answered)| self.after_walk(slot, answered)).collect()
    }

    /// What a client gets once a walk is over: always memory's answer, which only moves forward.
    fn after_walk(&self, slot: &Slot, answered: Answered) -> Result<Reading, NoAnswer> {
        let served = match answered {
            Some(tier) => Served::By(tier),
            // Somebody else's walk, or a trial, may have been luckier.
            None if self.memory.fresh(slot).is_some() => Served::Memory,
            None => Served::Stale,
        };
        let shown = self.memory.any(slot).ok_or(NoAnswer::Unknown)?;
        Ok(Reading { shown, served })
    }

    fn fresh(&self, slot: &Slot) -> Option<Reading> {
        let shown = self.memory.fresh(slot)?;
        Some(Reading { shown, served: Served::Memory })
    }

    fn in_memory(&self, slots: &[Arc<Slot>], served: Served) -> Result<Vec<Reading>, NoAnswer> {
        let reading = |slot: &Arc<Slot>| {
            let shown = self.memory.any(slot).ok_or(NoAnswer::Unknown)?;
            Ok(Reading { shown, served })
        };
        slots.iter().map(reading).collect()
    }

    fn time_to_next_look(&self) -> Duration {
        match self.memory.news() {
            News::FlowingSince(_) => LOOK_WITH_NEWS,
            News::Silent => LOOK_WITHOUT_NEWS,
        }
    }
}

/// Wakes when the answer of any slot has changed since the last time.
async fn any_move(moves: &mut [watch::Receiver<()>]) {
    // A slot outlives its readers, so that the only outcome is a change.
    select_all(moves.iter_mut().map(|moves| Box::pin(moves.changed()))).await.0.unwrap_or_default();
}
