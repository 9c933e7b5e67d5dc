//! The first tier: the newest answer of each budget in this process's memory, ready to send.
//!
//! Readers take a snapshot without locking. Within a term, an answer is replaced only by an answer that counts
//! everything that the former one counts, so no reader sees an older state. The first answer of a later term may count
//! less, once `read_policy::term_grace` allows it; its version is greater all the same. `refresher` and `tier_chain`
//! fetch the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use parking_lot::Mutex;
use schemas::{Budget, BudgetId, CombinedTotals};
use storage::control::Catalog;
use tokio::sync::watch;
use tokio::time::Instant;

use super::RECOUNT_INTERVAL;
use crate::answer::{Answer, AnswerError, Provenance};
use crate::read_policy::{
    MemoryState, Micros, OfferVerdict, TermGrace, UpdateFeed, compare, is_fresh,
};

/// How long after its last read a budget is refreshed in the background.
const RECENT_READ_WINDOW: Duration = Duration::from_secs(30);

/// How often a read stores its time: all threads share that value.
const READ_NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// The newest answers of all budgets.
#[derive(Debug)]
pub struct Memory {
    started: Instant,
    freshness: Duration,
    entries: ArcSwap<HashMap<BudgetId, Arc<MemoryEntry>>>,
    /// When the feed of cache updates became live; 0 while it is interrupted.
    updates_live_since: AtomicU64,
    term_grace: Arc<Mutex<TermGrace>>,
}

impl Memory {
    /// Creates an empty memory with an interrupted update feed.
    pub fn new(freshness: Duration) -> Self {
        Self {
            started: Instant::now(),
            freshness,
            entries: ArcSwap::default(),
            updates_live_since: AtomicU64::new(0),
            term_grace: Arc::default(),
        }
    }

    /// Returns the present moment on this memory's clock.
    pub fn now(&self) -> Micros {
        let since = self.started.elapsed().as_micros();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    /// Returns a budget's entry, if it exists.
    pub fn entry(&self, id: &str) -> Option<Arc<MemoryEntry>> {
        self.entries.load().get(id).cloned()
    }

    /// Returns a defined budget's entry, and creates it if needed. Entries are only removed when the definition is
    /// deleted or becomes unreadable.
    pub fn entry_or_insert(&self, id: &BudgetId) -> Arc<MemoryEntry> {
        if let Some(entry) = self.entry(id.as_str()) {
            return entry;
        }
        let new = Arc::new(MemoryEntry::new(id.clone(), Arc::clone(&self.term_grace)));
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            entries.entry(id.clone()).or_insert_with(|| Arc::clone(&new));
            entries
        });
        self.entry(id.as_str()).unwrap_or(new)
    }

    /// Returns all entries.
    pub fn entries(&self) -> Vec<Arc<MemoryEntry>> {
        self.entries.load().values().cloned().collect()
    }

    /// Returns the entries of recently read budgets.
    pub fn recently_read(&self) -> Vec<Arc<MemoryEntry>> {
        let now = self.now();
        let mut entries = self.entries();
        entries.retain(|entry| entry.was_recently_read(now));
        entries
    }

    /// Returns whether cache updates arrive.
    pub fn update_feed(&self) -> UpdateFeed {
        match self.updates_live_since.load(Ordering::Relaxed) {
            0 => UpdateFeed::Interrupted,
            since => UpdateFeed::LiveSince(since),
        }
    }

    /// Marks the feed of cache updates as live from now on; keeps an earlier start unless there was a gap.
    pub fn set_updates_live(&self, after_gap: bool) {
        if after_gap || self.update_feed() == UpdateFeed::Interrupted {
            self.updates_live_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Marks the feed of cache updates as interrupted: changes may be missed.
    pub fn set_updates_interrupted(&self) {
        self.updates_live_since.store(0, Ordering::Relaxed);
    }

    /// Returns the entry's answer if it is fresh: it may be sent without querying a tier.
    pub fn fresh(&self, entry: &MemoryEntry) -> Option<AgedAnswer> {
        let now = self.now();
        entry.note_read(now);
        let answer = entry.answer.load_full()?;
        let confirmed = entry.confirmed.load(Ordering::Acquire);
        let feed = self.update_feed().trusted_from(entry.stale_since.load(Ordering::Acquire));
        let fresh =
            is_fresh(confirmed, now, feed, self.freshness) && !answer.is_outdated(Timestamp::now);
        fresh.then(|| AgedAnswer { answer, age: age(confirmed, now) })
    }

    /// Returns the entry's answer, however old.
    pub fn latest(&self, entry: &MemoryEntry) -> Option<AgedAnswer> {
        entry.rerender_if_outdated(Timestamp::now());
        let answer = entry.answer.load_full()?;
        Some(AgedAnswer { answer, age: age(entry.confirmed.load(Ordering::Acquire), self.now()) })
    }

    /// Returns what the entry holds, for the decisions of `read_policy`.
    pub fn state(&self, entry: &MemoryEntry) -> MemoryState {
        entry.answer.load().as_ref().map_or(MemoryState::Empty, |answer| MemoryState::Answer {
            provenance: answer.provenance(),
            recount_due: age(entry.confirmed.load(Ordering::Acquire), self.now())
                >= RECOUNT_INTERVAL,
        })
    }

    /// Renders all answers anew whose budget definitions have changed, and removes those without a readable definition.
    pub fn redefine(&self, catalog: &Catalog) {
        let now = Timestamp::now();
        if self.entries.load().keys().any(|id| catalog.get(id.as_str()).is_none()) {
            self.entries.rcu(|entries| {
                let mut entries = HashMap::clone(entries);
                entries.retain(|id, _| catalog.get(id.as_str()).is_some());
                entries
            });
        }
        for entry in self.entries() {
            if let Some(budget) = catalog.get(entry.id.as_str()) {
                entry.redefine(budget, now);
            }
        }
    }
}

/// An answer and the time since it was last confirmed.
#[derive(Debug, Clone)]
pub struct AgedAnswer {
    /// The answer.
    pub answer: Arc<Answer>,
    /// Time since a tier confirmed that no newer answer exists.
    pub age: Duration,
}

/// Holds one budget's newest answer.
#[derive(Debug)]
pub struct MemoryEntry {
    /// The budget.
    pub id: BudgetId,
    answer: ArcSwapOption<Answer>,
    /// Serializes writers; readers never wait for it.
    writing: Mutex<()>,
    /// When a tier last confirmed the answer; 0 if never.
    confirmed: AtomicU64,
    /// When a cache update last arrived that was not fetched; 0 if never.
    stale_since: AtomicU64,
    /// When the answer was last read; 0 if never.
    read: AtomicU64,
    changed: watch::Sender<()>,
    /// Shared by all budgets: a switch is one for all of them.
    term_grace: Arc<Mutex<TermGrace>>,
}

impl MemoryEntry {
    fn new(id: BudgetId, term_grace: Arc<Mutex<TermGrace>>) -> Self {
        Self {
            id,
            term_grace,
            answer: ArcSwapOption::empty(),
            writing: Mutex::new(()),
            confirmed: AtomicU64::new(0),
            stale_since: AtomicU64::new(0),
            read: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }

    /// Offers totals from a tier: newer totals replace the answer, equal totals confirm it. Totals of a later term that
    /// still lack records a minute after the term was first seen replace it, too.
    ///
    /// `queried_at` is the moment before the tier was queried.
    ///
    /// # Errors
    /// When the totals are invalid for this budget; the answer is kept.
    pub fn offer(
        &self,
        budget: &Arc<Budget>,
        totals: CombinedTotals,
        provenance: Provenance,
        queried_at: Micros,
    ) -> Result<OfferVerdict, AnswerError> {
        let _writing = self.writing.lock();
        let current = self.answer.load_full();
        let mut shows_change = false;
        let verdict = current.as_deref().map_or(OfferVerdict::Newer, |current| {
            let verdict = compare((current.totals(), current.provenance()), (&totals, provenance));
            self.with_grace(verdict, current, (&totals, provenance))
        });
        if verdict == OfferVerdict::Newer {
            // A concurrent `redefine` may have applied a newer definition already.
            let budget = match &current {
                Some(current) if current.budget().revision > budget.revision => current.budget(),
                _ => budget,
            };
            let now = Timestamp::now();
            let answer = Answer::new(Arc::clone(budget), Arc::new(totals), provenance, now)?;
            // Withheld answers are the same whatever they count: nobody is to be woken by a submission.
            let is_same = |former: &Answer| {
                former.is_withheld()
                    && answer.is_withheld()
                    && former.plain().etag == answer.plain().etag
            };
            shows_change = !current.as_deref().is_some_and(is_same);
            self.answer.store(Some(Arc::new(answer)));
        }
        if verdict.is_in_memory() {
            self.confirmed.fetch_max(queried_at, Ordering::AcqRel);
        }
        if shows_change {
            self.changed.send_replace(());
        }
        Ok(verdict)
    }

    /// Corrects a verdict on totals of a later term, for which memory is not kept for ever.
    fn with_grace(
        &self,
        verdict: OfferVerdict,
        current: &Answer,
        offered: (&CombinedTotals, Provenance),
    ) -> OfferVerdict {
        if verdict.is_in_memory() || offered.0.term.number <= current.totals().term.number {
            return verdict;
        }
        let mut grace = self.term_grace.lock();
        let decided = grace.decide(verdict, current.totals(), offered, Instant::now());
        if decided != verdict {
            let generation = offered.0.term.generation.0;
            tracing::warn!(budget = %self.id, generation, "totals of a later generation end earlier than those shown, showing them");
        }
        decided
    }

    /// Subscribes to changes of the answer.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns whether the answer was recently read.
    pub fn was_recently_read(&self, now: Micros) -> bool {
        match self.read.load(Ordering::Relaxed) {
            0 => false,
            read => age(read, now) < RECENT_READ_WINDOW,
        }
    }

    /// Returns whether there is an answer.
    pub fn is_warm(&self) -> bool {
        self.answer.load().is_some()
    }

    /// Notes that the answer is read.
    pub fn note_read(&self, now: Micros) {
        let noted = self.read.load(Ordering::Relaxed);
        if noted == 0 || age(noted, now) >= READ_NOTE_INTERVAL {
            self.read.store(now, Ordering::Relaxed);
        }
    }

    /// Marks the answer as stale: a cache update arrived for it and is not fetched.
    pub fn mark_stale(&self, now: Micros) {
        self.stale_since.fetch_max(now, Ordering::AcqRel);
    }

    /// Renders the same totals with a newer definition.
    pub fn redefine(&self, budget: &Arc<Budget>, now: Timestamp) {
        self.rerender(now, |current| {
            (budget.revision > current.budget().revision).then(|| Arc::clone(budget))
        });
    }

    fn rerender_if_outdated(&self, now: Timestamp) {
        self.rerender(now, |current| {
            current.is_outdated(|| now).then(|| Arc::clone(current.budget()))
        });
    }

    /// Renders the same totals anew with the definition that `wanted` returns, if any.
    fn rerender(&self, now: Timestamp, wanted: impl Fn(&Answer) -> Option<Arc<Budget>>) {
        if self.answer.load().as_deref().and_then(&wanted).is_none() {
            return;
        }
        let _writing = self.writing.lock();
        let Some(current) = self.answer.load_full() else { return };
        let Some(budget) = wanted(&current) else { return };
        match Answer::new(budget, Arc::clone(current.totals()), current.provenance(), now) {
            Ok(answer) => {
                self.answer.store(Some(Arc::new(answer)));
                self.changed.send_replace(());
            }
            Err(error) => {
                tracing::warn!(budget = %self.id, %error, "failed to apply the new budget definition, keeping the old answer");
            }
        }
    }
}

fn age(then: Micros, now: Micros) -> Duration {
    Duration::from_micros(now.saturating_sub(then))
}
