//! Keeps memory current in the background: on cache updates, on a timer, and after every gap in the updates.
//!
//! Clients therefore rarely wait for another tier, and memory knows how long its answers can be trusted. Updates that
//! arrive close together are handled together: one fetch for all changed budgets, then a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::BudgetId;
use storage::cache::{Cache, CacheUpdate};
use storage::control::BudgetDefinitions;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::ApiMetrics;
use crate::readiness::Readiness;
use crate::tier_chain::TierChain;
use crate::tiers::memory::{Memory, MemoryEntry};

/// Pause between two fetches; all updates of one budget meanwhile cost one fetch.
const FETCH_INTERVAL: Duration = Duration::from_millis(5);
/// How long a round waits for its fetches. Fetches that take longer continue, and their budgets stay pending.
const ROUND_TIMEOUT: Duration = Duration::from_millis(100);
/// How often every recently read budget is confirmed, with or without updates.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(500);

/// The background task that keeps memory current.
pub struct Refresher {
    /// The memory to refresh.
    pub memory: Arc<Memory>,
    /// Fetches answers.
    pub tier_chain: Arc<TierChain>,
    /// Budget names and rules.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The checks behind `/readyz`.
    pub readiness: Readiness,
    /// The metrics to update.
    pub metrics: ApiMetrics,
}

/// The entries to fetch in the next round.
type PendingSlots = BTreeMap<BudgetId, Arc<MemoryEntry>>;

impl Refresher {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, cache: Arc<dyn Cache>, stop: CancellationToken) {
        let mut updates = Some(cache.subscribe());
        let mut changes = self.definitions.changes();
        let mut definitions_open = true;
        let mut tick = interval(CONFIRM_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending = PendingSlots::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = next_event(&mut updates) => self.handle(event, &mut pending),
                changed = changes.changed(), if definitions_open => {
                    definitions_open = changed.is_ok();
                    self.memory.redefine(&self.definitions.catalog());
                }
                _ = tick.tick() => {
                    enqueue(self.memory.recently_read(), &mut pending);
                    self.report();
                }
                () = sleep(FETCH_INTERVAL), if !pending.is_empty() => {}
            }
            while let Some(event) = try_next(&mut updates) {
                self.handle(event, &mut pending);
            }
            if !pending.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.refresh(&mut pending) => {}
                }
                sleep(FETCH_INTERVAL).await;
            }
        }
    }

    /// Fetches the pending entries; joins no fetch that began before now.
    async fn refresh(&self, pending: &mut PendingSlots) {
        let now = Some(Instant::now());
        let (warm, cold): (Vec<_>, Vec<_>) =
            pending.values().cloned().partition(|entry| entry.is_warm());
        if !cold.is_empty() {
            // No reader has been shown these budgets, so the warm budgets must not wait for them.
            pending.retain(|_, entry| !cold.iter().any(|cold| cold.id == entry.id));
            let tier_chain = Arc::clone(&self.tier_chain);
            tokio::spawn(async move { tier_chain.fetch(&cold, now).await });
        }
        if timeout(ROUND_TIMEOUT, self.tier_chain.fetch(&warm, now)).await.is_ok() {
            pending.clear();
        }
    }

    fn handle(&self, event: FeedEvent, pending: &mut PendingSlots) {
        match event {
            FeedEvent::Update(CacheUpdate::Changed(budget)) => {
                self.memory.set_updates_live(false);
                let now = self.memory.now();
                match self.memory.entry(budget.as_str()) {
                    Some(entry) if entry.was_recently_read(now) => enqueue([entry], pending),
                    Some(entry) => entry.mark_stale(now),
                    None => {}
                }
            }
            FeedEvent::Update(CacheUpdate::Resumed) => {
                self.memory.set_updates_live(true);
                enqueue(self.memory.recently_read(), pending);
            }
            // The lost updates may include an interruption; the next update shows that the feed is live.
            FeedEvent::Gap => {
                self.memory.set_updates_interrupted();
                enqueue(self.memory.recently_read(), pending);
            }
            FeedEvent::Update(CacheUpdate::Interrupted) | FeedEvent::End => {
                self.memory.set_updates_interrupted();
            }
        }
    }

    /// Updates metrics and readiness.
    fn report(&self) {
        let entries = self.memory.entries();
        let warm = entries.iter().filter(|entry| entry.is_warm()).count();
        self.metrics.memory_entries.set(i64::try_from(warm).unwrap_or(i64::MAX));
        let recent = self.memory.recently_read();
        let ages = recent.iter().filter_map(|entry| self.memory.latest(entry)).map(|aged| aged.age);
        self.metrics.staleness_seconds.set(ages.max().unwrap_or_default().as_secs_f64());
        self.readiness.update(&*self.definitions, warm > 0, &self.tier_chain, &self.memory);
    }
}

fn enqueue(entries: impl IntoIterator<Item = Arc<MemoryEntry>>, pending: &mut PendingSlots) {
    pending.extend(entries.into_iter().map(|entry| (entry.id.clone(), entry)));
}

/// An event of the subscription to cache updates.
enum FeedEvent {
    Update(CacheUpdate),
    /// Updates were lost; the subscription continues.
    Gap,
    /// The subscription has ended.
    End,
}

type UpdateSubscription = Option<broadcast::Receiver<CacheUpdate>>;

/// Waits for the next event; waits forever after the end.
async fn next_event(updates: &mut UpdateSubscription) -> FeedEvent {
    let Some(receiver) = updates else {
        return std::future::pending().await;
    };
    match receiver.recv().await {
        Ok(update) => FeedEvent::Update(update),
        Err(RecvError::Lagged(_)) => FeedEvent::Gap,
        Err(RecvError::Closed) => {
            *updates = None;
            FeedEvent::End
        }
    }
}

/// Returns an event that has already arrived.
fn try_next(updates: &mut UpdateSubscription) -> Option<FeedEvent> {
    match updates.as_mut()?.try_recv() {
        Ok(update) => Some(FeedEvent::Update(update)),
        Err(TryRecvError::Lagged(_)) => Some(FeedEvent::Gap),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}
