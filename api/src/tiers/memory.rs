//! The first tier: each budget's newest answer in this process's memory, ready to be sent.
//!
//! Readers take a snapshot and no lock. An answer is only ever replaced by one that includes it, so nobody who reads
//! here sees a number or a version go back. Who fetches answers, and when, is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use schemas::{Budget, BudgetId, CombinedTotals};
use storage::definitions::Catalog;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{Answer, Provenance, Unfit};
use crate::chain::{Held, Micros, News, Verdict, is_fresh, judge};

/// For how long after its last read a budget is kept up in the background.
const LATELY: Duration = Duration::from_secs(30);

/// Reads note their time only this often: the note is shared by all threads.
const READ_NOTE: Duration = Duration::from_secs(1);

/// How long a recounted answer is shown before everyone's rows are counted again.
const RECOUNT_REST: Duration = Duration::from_secs(5);

/// All budgets' newest answers.
#[derive(Debug)]
pub struct Memory {
    started: Instant,
    freshness: Duration,
    slots: ArcSwap<HashMap<BudgetId, Arc<Slot>>>,
    /// Since when news flows; 0 for silence.
    news_since: AtomicU64,
}

impl Memory {
    /// Empty, and without news.
    pub fn new(freshness: Duration) -> Self {
        Self {
            started: Instant::now(),
            freshness,
            slots: ArcSwap::default(),
            news_since: AtomicU64::new(0),
        }
    }

    /// Now, as this memory counts time.
    pub fn now(&self) -> Micros {
        let since = self.started.elapsed().as_micros();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    /// The place of a budget's answer, if there is one.
    pub fn slot(&self, id: &str) -> Option<Arc<Slot>> {
        self.slots.load().get(id).cloned()
    }

    /// The place of a defined budget's answer. Budgets are never undefined, so places are never taken away.
    pub fn open_slot(&self, id: &BudgetId) -> Arc<Slot> {
        if let Some(slot) = self.slot(id.as_str()) {
            return slot;
        }
        let new = Arc::new(Slot::new(id.clone()));
        self.slots.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            slots.entry(id.clone()).or_insert_with(|| Arc::clone(&new));
            slots
        });
        self.slot(id.as_str()).unwrap_or(new)
    }

    /// Every place.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.load().values().cloned().collect()
    }

    /// The places of budgets that were read lately.
    pub fn read_lately(&self) -> Vec<Arc<Slot>> {
        let now = self.now();
        let mut slots = self.slots();
        slots.retain(|slot| slot.was_read_lately(now));
        slots
    }

    /// Whether news of every move arrives.
    pub fn news(&self) -> News {
        match self.news_since.load(Ordering::Relaxed) {
            0 => News::Silent,
            since => News::FlowingSince(since),
        }
    }

    /// Notes that news flows from now on, if it did not; or, after a gap, from now on anew.
    pub fn news_flows(&self, after_a_gap: bool) {
        if after_a_gap || self.news() == News::Silent {
            self.news_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that moves may go unheard.
    pub fn news_stops(&self) {
        self.news_since.store(0, Ordering::Relaxed);
    }

    /// The slot's answer, if it may be sent without asking anybody.
    pub fn fresh(&self, slot: &Slot) -> Option<Shown> {
        let now = self.now();
        slot.note_read(now);
        let answer = slot.answer.load_full()?;
        let validated = slot.validated.load(Ordering::Acquire);
        let news = self.news().since_at_least(slot.unfollowed.load(Ordering::Acquire));
        let fresh =
            is_fresh(validated, now, news, self.freshness) && !answer.is_outdated(Timestamp::now);
        fresh.then(|| Shown { answer, age: age(validated, now) })
    }

    /// The slot's answer, however old.
    pub fn any(&self, slot: &Slot) -> Option<Shown> {
        slot.close_when_due(Timestamp::now());
        let answer = slot.answer.load_full()?;
        Some(Shown { answer, age: age(slot.validated.load(Ordering::Acquire), self.now()) })
    }

    /// What the slot holds, for the chain's decisions.
    pub fn held(&self, slot: &Slot) -> Held {
        slot.answer.load().as_ref().map_or(Held::Nothing, |answer| Held::Answer {
            provenance: answer.provenance(),
            rested: age(slot.validated.load(Ordering::Acquire), self.now()) >= RECOUNT_REST,
        })
    }

    /// Makes answers anew whose definitions have changed.
    pub fn redefine(&self, catalog: &Catalog) {
        let now = Timestamp::now();
        for slot in self.slots() {
            if let Some(budget) = catalog.get(slot.id.as_str()) {
                slot.redefine(budget, now);
            }
        }
    }
}

/// An answer and the time since it was last confirmed.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The answer.
    pub answer: Arc<Answer>,
    /// Time since a tier said that there is none newer.
    pub age: Duration,
}

/// The place of one budget's answer.
#[derive(Debug)]
pub struct Slot {
    /// Whose.
    pub id: BudgetId,
    answer: ArcSwapOption<Answer>,
    /// Writers go one by one; readers never wait for them.
    writing: Mutex<()>,
    validated: AtomicU64,
    /// When news of a move came that nobody followed.
    unfollowed: AtomicU64,
    read: AtomicU64,
    moved: watch::Sender<()>,
}

impl Slot {
    fn new(id: BudgetId) -> Self {
        Self {
            id,
            answer: ArcSwapOption::empty(),
            writing: Mutex::new(()),
            validated: AtomicU64::new(0),
            unfollowed: AtomicU64::new(0),
            read: AtomicU64::new(0),
            moved: watch::Sender::new(()),
        }
    }

    /// Takes what a tier found, if it is newer than what is held; confirms what is held, if it is the same. `asked`
    /// is the moment before the tier was asked.
    ///
    /// # Errors
    /// When the totals cannot be an answer for this budget; what is held stays.
    pub fn offer(
        &self,
        budget: &Arc<Budget>,
        found: CombinedTotals,
        provenance: Provenance,
        asked: Micros,
    ) -> Result<Verdict, Unfit> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.answer.load_full();
        let verdict = held.as_deref().map_or(Verdict::Forward, |held| {
            judge((held.totals(), held.provenance()), (&found, provenance))
        });
        if verdict == Verdict::Forward {
            // Another reader of the definitions may have been quicker.
            let budget = match &held {
                Some(held) if held.budget().revision > budget.revision => held.budget(),
                _ => budget,
            };
            let now = Timestamp::now();
            let answer = Answer::new(Arc::clone(budget), Arc::new(found), provenance, now)?;
            self.answer.store(Some(Arc::new(answer)));
        }
        if verdict.is_held() {
            self.validated.fetch_max(asked, Ordering::AcqRel);
        }
        if verdict == Verdict::Forward {
            self.moved.send_replace(());
        }
        Ok(verdict)
    }

    /// Wakes whenever the answer has changed.
    pub fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// Whether anybody read it lately.
    pub fn was_read_lately(&self, now: Micros) -> bool {
        match self.read.load(Ordering::Relaxed) {
            0 => false,
            read => age(read, now) < LATELY,
        }
    }

    /// Whether there is an answer.
    pub fn is_warm(&self) -> bool {
        self.answer.load().is_some()
    }

    /// Notes that somebody reads it.
    pub fn note_read(&self, now: Micros) {
        let noted = self.read.load(Ordering::Relaxed);
        if noted == 0 || age(noted, now) >= READ_NOTE {
            self.read.store(now, Ordering::Relaxed);
        }
    }

    /// Notes that it has moved, and that what it moved to is not fetched: what is held is not trusted any more.
    pub fn leave_behind(&self, now: Micros) {
        self.unfollowed.fetch_max(now, Ordering::AcqRel);
    }

    /// Shows the same totals under a newer definition.
    pub fn redefine(&self, budget: &Arc<Budget>, now: Timestamp) {
        self.remake(now, |held| {
            (budget.revision > held.budget().revision).then(|| Arc::clone(budget))
        });
    }

    fn close_when_due(&self, now: Timestamp) {
        self.remake(now, |held| held.is_outdated(|| now).then(|| Arc::clone(held.budget())));
    }

    /// Shows the same totals in another form, if `wanted` says so.
    fn remake(&self, now: Timestamp, wanted: impl Fn(&Answer) -> Option<Arc<Budget>>) {
        if self.answer.load().as_deref().and_then(&wanted).is_none() {
            return;
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = self.answer.load_full() else { return };
        let Some(budget) = wanted(&held) else { return };
        match Answer::new(budget, Arc::clone(held.totals()), held.provenance(), now) {
            Ok(answer) => {
                self.answer.store(Some(Arc::new(answer)));
                self.moved.send_replace(());
            }
            Err(fault) => {
                tracing::warn!(budget = %self.id, %fault, "kept under its old definition")
            }
        }
    }
}

fn age(then: Micros, now: Micros) -> Duration {
    Duration::from_micros(now.saturating_sub(then))
}
