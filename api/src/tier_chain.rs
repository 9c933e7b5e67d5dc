//! Queries the tiers in order until every budget has an answer.
//!
//! At most one fetch and one catch-up per budget runs at a time, whichever other budgets a reader names, and in
//! whichever order; concurrent readers share its result. Both run in their own task, so they complete even when the
//! reader that started them disconnects. How one tier is queried is in `tier_query`.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::time::Instant;

use crate::no_answer::NoAnswer;
use crate::read_policy::{MemoryState, Tier, should_query};
use crate::single_flight::{FlightHandle, FlightLeader, SingleFlight};
use crate::tier_query::{QueryOutcome, Tiers};
use crate::tiers::memory::{Memory, MemoryEntry};

/// The tier whose answer memory now holds, or why no tier answered.
pub type AnsweringTier = Result<Tier, NoAnswer>;

/// The tiers behind memory, queried in order.
pub struct TierChain {
    memory: Arc<Memory>,
    tiers: Arc<Tiers>,
    fetches: SingleFlight<BudgetId, AnsweringTier>,
    catch_ups: SingleFlight<BudgetId, bool>,
}

impl TierChain {
    /// Creates a chain of `tiers` behind `memory`.
    pub fn new(memory: Arc<Memory>, tiers: Tiers) -> Self {
        Self {
            memory,
            tiers: Arc::new(tiers),
            fetches: SingleFlight::new(),
            catch_ups: SingleFlight::new(),
        }
    }

    /// Returns whether the latest read of any tier succeeded.
    pub fn any_tier_healthy(&self) -> bool {
        self.tiers.any_healthy()
    }

    /// Fetches each entry's answer into memory, or joins a running fetch that began after `not_before`.
    ///
    /// Returns the answering tiers in the order of the entries.
    pub async fn fetch(
        self: &Arc<Self>,
        entries: &[Arc<MemoryEntry>],
        not_before: Option<Instant>,
    ) -> Vec<AnsweringTier> {
        let mut answered = vec![Err(NoAnswer::Unavailable); entries.len()];
        let mut waiting: Vec<usize> = (0..entries.len()).collect();
        // At most two rounds: a fetch that is joined in the second round began after `not_before`.
        while !waiting.is_empty() {
            let is_warm = |at: &usize| entries.get(*at).is_some_and(|entry| entry.is_warm());
            let (warm, cold): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(is_warm);
            // Two fetches: cold entries wait for the store, and warm entries must not wait with them.
            let mut handles = self.join_fetches(entries, warm, not_before);
            handles.extend(self.join_fetches(entries, cold, not_before));
            let mut too_old = Vec::new();
            for (at, handle) in handles {
                let recent_enough = handle.recent_enough;
                let result = handle.result().await.unwrap_or(Err(NoAnswer::Unavailable));
                match answered.get_mut(at) {
                    Some(answer) if recent_enough => *answer = result,
                    _ => too_old.push(at),
                }
            }
            waiting = too_old;
        }
        answered
    }

    /// Brings each entry to its committed totals of a moment after this call.
    ///
    /// Returns false when one of those reads of the committed totals has no answer.
    pub async fn catch_up(self: &Arc<Self>, entries: &[Arc<MemoryEntry>]) -> bool {
        let now = Instant::now();
        let mut waiting = entries.to_vec();
        // At most two rounds, like `fetch`.
        while !waiting.is_empty() {
            let ids: Vec<BudgetId> = waiting.iter().map(|entry| entry.id.clone()).collect();
            let (leader, handles) = self.catch_ups.join(&ids, Some(now));
            if !leader.is_empty() {
                let led = waiting.iter().filter(|entry| leader.leads(&entry.id)).cloned().collect();
                tokio::spawn(Arc::clone(self).run_catch_up(led, leader));
            }
            let mut too_old = Vec::new();
            for (entry, handle) in waiting.into_iter().zip(handles) {
                let recent_enough = handle.recent_enough;
                let caught_up = handle.result().await.unwrap_or(false);
                if !recent_enough {
                    too_old.push(entry);
                } else if !caught_up {
                    return false;
                }
            }
            waiting = too_old;
        }
        true
    }

    async fn run_catch_up(
        self: Arc<Self>,
        entries: Vec<Arc<MemoryEntry>>,
        mut leader: FlightLeader<BudgetId, bool>,
    ) {
        let included = self.tiers.query_committed_to_include(&entries).await;
        for (entry, included) in entries.iter().zip(included) {
            leader.complete(&entry.id, included);
        }
    }

    /// Joins the fetches of the entries at these indexes; starts one fetch for all entries that have none running.
    fn join_fetches(
        self: &Arc<Self>,
        entries: &[Arc<MemoryEntry>],
        indexes: Vec<usize>,
        not_before: Option<Instant>,
    ) -> Vec<(usize, FlightHandle<AnsweringTier>)> {
        let wanted: Vec<&Arc<MemoryEntry>> =
            indexes.iter().filter_map(|at| entries.get(*at)).collect();
        let keys: Vec<BudgetId> = wanted.iter().map(|entry| entry.id.clone()).collect();
        let (leader, handles) = self.fetches.join(&keys, not_before);
        if !leader.is_empty() {
            let led = wanted.into_iter().filter(|entry| leader.leads(&entry.id)).cloned().collect();
            tokio::spawn(Arc::clone(self).run_fetch(led, leader));
        }
        indexes.into_iter().zip(handles).collect()
    }

    async fn run_fetch(
        self: Arc<Self>,
        mut entries: Vec<Arc<MemoryEntry>>,
        mut leader: FlightLeader<BudgetId, AnsweringTier>,
    ) {
        let preloaded = self.preload_committed(&entries).await;
        for tier in Tier::ALL {
            let (to_query, mut unanswered): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| should_query(tier, self.memory.state(entry)));
            if !to_query.is_empty() {
                let outcomes = self.query_unless_preloaded(tier, &to_query, &preloaded).await;
                for (entry, outcome) in to_query.iter().zip(outcomes) {
                    match outcome {
                        QueryOutcome::InMemory => leader.complete(&entry.id, Ok(tier)),
                        // A later tier costs more, and would not relieve this one.
                        QueryOutcome::Refused(reason) => leader.complete(&entry.id, Err(reason)),
                        QueryOutcome::Unanswered => unanswered.push(Arc::clone(entry)),
                    }
                }
            }
            entries = unanswered;
        }
        for entry in entries {
            leader.complete(&entry.id, Err(NoAnswer::Unavailable));
        }
    }

    /// Loads the committed totals of cold entries, as the lower bound of what may be shown.
    ///
    /// Redis lags behind the commits. A process with an empty memory would accept whatever Redis holds, although an
    /// earlier process may have shown readers more. Returns the outcome for each budget tried.
    async fn preload_committed(
        &self,
        entries: &[Arc<MemoryEntry>],
    ) -> HashMap<BudgetId, QueryOutcome> {
        let cold = entries.iter().filter(|entry| self.memory.state(entry) == MemoryState::Empty);
        let cold: Vec<_> = cold.cloned().collect();
        if cold.is_empty() {
            return HashMap::new();
        }
        let outcomes = self.tiers.query(Tier::Summary, &cold).await;
        cold.iter().map(|entry| entry.id.clone()).zip(outcomes).collect()
    }

    /// Queries one tier, except for a entry that the same query has just preloaded.
    async fn query_unless_preloaded(
        &self,
        tier: Tier,
        entries: &[Arc<MemoryEntry>],
        preloaded: &HashMap<BudgetId, QueryOutcome>,
    ) -> Vec<QueryOutcome> {
        let known = |entry: &Arc<MemoryEntry>| match preloaded.get(&entry.id) {
            Some(QueryOutcome::InMemory) if tier == Tier::Summary => {
                self.memory.fresh(entry).map(|_| QueryOutcome::InMemory)
            }
            Some(outcome) if tier == Tier::Summary => Some(*outcome),
            _ => None,
        };
        let known: Vec<Option<QueryOutcome>> = entries.iter().map(known).collect();
        let to_query = entries.iter().zip(&known).filter(|(_, known)| known.is_none());
        let to_query: Vec<_> = to_query.map(|(entry, _)| Arc::clone(entry)).collect();
        let mut queried = match to_query.as_slice() {
            [] => Vec::new(),
            entries => self.tiers.query(tier, entries).await,
        }
        .into_iter();
        known
            .into_iter()
            .map(|known| known.or_else(|| queried.next()).unwrap_or(QueryOutcome::Unanswered))
            .collect()
    }
}
