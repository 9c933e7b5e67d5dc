//! Queries the tiers in order until every budget has an answer.
//!
//! At most one fetch per budget runs at a time; concurrent readers share its result. A fetch runs in its own task, so
//! it completes even when the reader that started it disconnects. How one tier is queried is in `tier_query`.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::time::Instant;

use crate::read_policy::{MemoryState, Tier, should_query};
use crate::single_flight::{FlightHandle, FlightLeader, SingleFlight};
use crate::tier_query::Tiers;
use crate::tiers::memory::{Memory, Slot};

/// The tier whose answer memory now holds; `None` if no tier answered.
pub type AnsweringTier = Option<Tier>;

/// The tiers behind memory, queried in order.
pub struct TierChain {
    memory: Arc<Memory>,
    tiers: Arc<Tiers>,
    fetches: SingleFlight<BudgetId, AnsweringTier>,
    catch_ups: SingleFlight<Vec<BudgetId>, bool>,
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

    /// Fetches each slot's answer into memory, or joins a running fetch that began after `not_before`.
    ///
    /// Returns the answering tiers in the order of the slots.
    pub async fn fetch(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
        not_before: Option<Instant>,
    ) -> Vec<AnsweringTier> {
        let mut answered = vec![None; slots.len()];
        let mut waiting: Vec<usize> = (0..slots.len()).collect();
        // At most two rounds: a fetch that is joined in the second round began after `not_before`.
        while !waiting.is_empty() {
            let is_warm = |at: &usize| slots.get(*at).is_some_and(|slot| slot.is_warm());
            let (warm, cold): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(is_warm);
            // Two fetches: cold slots wait for the store, and warm slots must not wait with them.
            let mut handles = self.join_fetches(slots, warm, not_before);
            handles.extend(self.join_fetches(slots, cold, not_before));
            let mut too_old = Vec::new();
            for (at, handle) in handles {
                let recent_enough = handle.recent_enough;
                let result = handle.result().await.flatten();
                match answered.get_mut(at) {
                    Some(answer) if recent_enough => *answer = result,
                    _ => too_old.push(at),
                }
            }
            waiting = too_old;
        }
        answered
    }

    /// Brings all slots to the committed totals of one moment after this call, or later.
    ///
    /// Returns false when that read of the committed totals has no answer for one of the slots.
    pub async fn catch_up(self: &Arc<Self>, slots: &[Arc<Slot>]) -> bool {
        let ids: Vec<BudgetId> = slots.iter().map(|slot| slot.id.clone()).collect();
        let now = Instant::now();
        // At most two rounds, like `fetch`.
        loop {
            let (leader, mut handles) = self.catch_ups.join(std::slice::from_ref(&ids), Some(now));
            if !leader.is_empty() {
                tokio::spawn(Arc::clone(self).run_catch_up(slots.to_vec(), ids.clone(), leader));
            }
            let Some(handle) = handles.pop() else { return false };
            let recent_enough = handle.recent_enough;
            let caught_up = handle.result().await.unwrap_or(false);
            if recent_enough {
                return caught_up;
            }
        }
    }

    async fn run_catch_up(
        self: Arc<Self>,
        slots: Vec<Arc<Slot>>,
        ids: Vec<BudgetId>,
        mut leader: FlightLeader<Vec<BudgetId>, bool>,
    ) {
        leader.complete(&ids, self.tiers.query_to_include(Tier::Summary, &slots).await);
    }

    /// Joins the fetches of the slots at these indexes; starts one fetch for all slots that have none running.
    fn join_fetches(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
        indexes: Vec<usize>,
        not_before: Option<Instant>,
    ) -> Vec<(usize, FlightHandle<AnsweringTier>)> {
        let wanted: Vec<&Arc<Slot>> = indexes.iter().filter_map(|at| slots.get(*at)).collect();
        let keys: Vec<BudgetId> = wanted.iter().map(|slot| slot.id.clone()).collect();
        let (leader, handles) = self.fetches.join(&keys, not_before);
        if !leader.is_empty() {
            let led = wanted.into_iter().filter(|slot| leader.leads(&slot.id)).cloned().collect();
            tokio::spawn(Arc::clone(self).run_fetch(led, leader));
        }
        indexes.into_iter().zip(handles).collect()
    }

    async fn run_fetch(
        self: Arc<Self>,
        mut slots: Vec<Arc<Slot>>,
        mut leader: FlightLeader<BudgetId, AnsweringTier>,
    ) {
        let preloaded = self.preload_committed(&slots).await;
        for tier in Tier::ALL {
            let (to_query, mut unanswered): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| should_query(tier, self.memory.state(slot)));
            if !to_query.is_empty() {
                let answered = self.query_unless_preloaded(tier, &to_query, &preloaded).await;
                for (slot, answered) in to_query.iter().zip(answered) {
                    if answered {
                        leader.complete(&slot.id, Some(tier));
                    } else {
                        unanswered.push(Arc::clone(slot));
                    }
                }
            }
            slots = unanswered;
        }
        for slot in slots {
            leader.complete(&slot.id, None);
        }
    }

    /// Loads the committed totals of cold slots, as the lower bound of what may be shown.
    ///
    /// Redis lags behind the commits. A process with an empty memory would accept whatever Redis holds, although an
    /// earlier process may have shown readers more. Returns the budgets tried, and whether memory holds their totals.
    async fn preload_committed(&self, slots: &[Arc<Slot>]) -> HashMap<BudgetId, bool> {
        let cold = slots.iter().filter(|slot| self.memory.state(slot) == MemoryState::Empty);
        let cold: Vec<_> = cold.cloned().collect();
        if cold.is_empty() {
            return HashMap::new();
        }
        let answered = self.tiers.query(Tier::Summary, &cold).await;
        cold.iter().map(|slot| slot.id.clone()).zip(answered).collect()
    }

    /// Queries one tier, except for a slot that the same query has just preloaded.
    async fn query_unless_preloaded(
        &self,
        tier: Tier,
        slots: &[Arc<Slot>],
        preloaded: &HashMap<BudgetId, bool>,
    ) -> Vec<bool> {
        let known = |slot: &Arc<Slot>| match preloaded.get(&slot.id) {
            Some(true) if tier == Tier::Summary => self.memory.fresh(slot).map(|_| true),
            Some(false) if tier == Tier::Summary => Some(false),
            _ => None,
        };
        let known: Vec<Option<bool>> = slots.iter().map(known).collect();
        let to_query = slots.iter().zip(&known).filter(|(_, known)| known.is_none());
        let to_query: Vec<_> = to_query.map(|(slot, _)| Arc::clone(slot)).collect();
        let mut queried = match to_query.as_slice() {
            [] => Vec::new(),
            slots => self.tiers.query(tier, slots).await,
        }
        .into_iter();
        known.into_iter().map(|known| known.or_else(|| queried.next()).unwrap_or(false)).collect()
    }
}
