//! Walks the chain: asks one tier after the other for the budgets that still have no answer. One walk a budget at a
//! time, whoever asks and however many; it goes on when they go away.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::time::Instant;

use crate::ask::Tiers;
use crate::chain::{Held, Tier, is_worth_asking};
use crate::single_flight::{Lead, Seat, SingleFlight};
use crate::tiers::memory::{Memory, Slot};

/// Who answered: memory holds the answer now. `None`: nobody.
pub type Answered = Option<Tier>;

/// The chain.
pub struct Walker {
    memory: Arc<Memory>,
    tiers: Arc<Tiers>,
    flights: SingleFlight<BudgetId, Answered>,
    catch_ups: SingleFlight<Vec<BudgetId>, bool>,
}

impl Walker {
    /// A chain of these tiers behind this memory.
    pub fn new(memory: Arc<Memory>, tiers: Tiers) -> Self {
        Self {
            memory,
            tiers: Arc::new(tiers),
            flights: SingleFlight::new(),
            catch_ups: SingleFlight::new(),
        }
    }

    /// Whether any tier answered when it was last asked.
    pub fn any_tier_works(&self) -> bool {
        self.tiers.any_works()
    }

    /// Walks for each of the slots, or joins walks that are under way, if they began after `not_before`.
    /// Answers in the slots' order.
    pub async fn walk(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
        not_before: Option<Instant>,
    ) -> Vec<Answered> {
        let mut answered = vec![None; slots.len()];
        let mut waiting: Vec<usize> = (0..slots.len()).collect();
        // At most twice: a walk that is found under way the second time began after `not_before`.
        while !waiting.is_empty() {
            let is_warm = |at: &usize| slots.get(*at).is_some_and(|slot| slot.is_warm());
            let (warm, cold): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(is_warm);
            // Two walks: what memory knows nothing of waits for the store, and the rest need not.
            let mut seats = self.board(slots, warm, not_before);
            seats.extend(self.board(slots, cold, not_before));
            let mut again = Vec::new();
            for (at, seat) in seats {
                let recent_enough = seat.recent_enough;
                let landed = seat.landed().await.flatten();
                match answered.get_mut(at) {
                    Some(answer) if recent_enough => *answer = landed,
                    _ => again.push(at),
                }
            }
            waiting = again;
        }
        answered
    }

    /// Brings all of the slots to one moment, or beyond it: what they show then includes what one read of the committed
    /// totals, begun after this call, has of each. False when that read has no answer for one of them.
    pub async fn catch_up(self: &Arc<Self>, slots: &[Arc<Slot>]) -> bool {
        let all: Vec<BudgetId> = slots.iter().map(|slot| slot.id.clone()).collect();
        let now = Instant::now();
        // At most twice, like a walk.
        loop {
            let (lead, mut seats) = self.catch_ups.board(std::slice::from_ref(&all), Some(now));
            if !lead.is_empty() {
                tokio::spawn(Arc::clone(self).lead_catch_up(slots.to_vec(), all.clone(), lead));
            }
            let Some(seat) = seats.pop() else { return false };
            let recent_enough = seat.recent_enough;
            let caught_up = seat.landed().await.unwrap_or(false);
            if recent_enough {
                return caught_up;
            }
        }
    }

    async fn lead_catch_up(
        self: Arc<Self>,
        slots: Vec<Arc<Slot>>,
        all: Vec<BudgetId>,
        mut lead: Lead<Vec<BudgetId>, bool>,
    ) {
        lead.land(&all, self.tiers.insist(Tier::Summary, &slots).await);
    }

    /// Seats in the walks of the slots at these places; starts one walk for all of them that are in none yet.
    fn board(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
        places: Vec<usize>,
        not_before: Option<Instant>,
    ) -> Vec<(usize, Seat<Answered>)> {
        let wanted: Vec<&Arc<Slot>> = places.iter().filter_map(|at| slots.get(*at)).collect();
        let keys: Vec<BudgetId> = wanted.iter().map(|slot| slot.id.clone()).collect();
        let (lead, seats) = self.flights.board(&keys, not_before);
        if !lead.is_empty() {
            let led = wanted.into_iter().filter(|slot| lead.leads(&slot.id)).cloned().collect();
            tokio::spawn(Arc::clone(self).lead(led, lead));
        }
        places.into_iter().zip(seats).collect()
    }

    async fn lead(self: Arc<Self>, mut slots: Vec<Arc<Slot>>, mut lead: Lead<BudgetId, Answered>) {
        let learned = self.learn_what_is_committed(&slots).await;
        for tier in Tier::ALL {
            let (asked, mut unanswered): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| is_worth_asking(tier, self.memory.held(slot)));
            if !asked.is_empty() {
                for (slot, good) in asked.iter().zip(self.ask_once(tier, &asked, &learned).await) {
                    if good {
                        lead.land(&slot.id, Some(tier));
                    } else {
                        unanswered.push(Arc::clone(slot));
                    }
                }
            }
            slots = unanswered;
        }
        for slot in slots {
            lead.land(&slot.id, None);
        }
    }

    /// A process that remembers nothing would take whatever Redis has. That follows the commits, and the process before
    /// this one may have shown readers more; so what is committed is put into memory first, as the least to show.
    /// Answers for which budgets that was tried, and whether memory holds it.
    async fn learn_what_is_committed(&self, slots: &[Arc<Slot>]) -> HashMap<BudgetId, bool> {
        let cold = slots.iter().filter(|slot| self.memory.held(slot) == Held::Nothing);
        let cold: Vec<_> = cold.cloned().collect();
        if cold.is_empty() {
            return HashMap::new();
        }
        let good = self.tiers.ask(Tier::Summary, &cold).await;
        cold.iter().map(|slot| slot.id.clone()).zip(good).collect()
    }

    /// Asks one tier, but not again for what was learned from it a moment ago.
    async fn ask_once(
        &self,
        tier: Tier,
        slots: &[Arc<Slot>],
        learned: &HashMap<BudgetId, bool>,
    ) -> Vec<bool> {
        let known = |slot: &Arc<Slot>| match learned.get(&slot.id) {
            Some(true) if tier == Tier::Summary => self.memory.fresh(slot).map(|_| true),
            Some(false) if tier == Tier::Summary => Some(false),
            _ => None,
        };
        let known: Vec<Option<bool>> = slots.iter().map(known).collect();
        let open = slots.iter().zip(&known).filter(|(_, known)| known.is_none());
        let open: Vec<_> = open.map(|(slot, _)| Arc::clone(slot)).collect();
        let mut asked = match open.as_slice() {
            [] => Vec::new(),
            open => self.tiers.ask(tier, open).await,
        }
        .into_iter();
        known.into_iter().map(|known| known.or_else(|| asked.next()).unwrap_or(false)).collect()
    }
}
