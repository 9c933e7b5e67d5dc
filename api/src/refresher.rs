//! Keeps memory up in the background: at news of a move, on a timer, and after every gap in the news. So clients
//! rarely wait for another tier, and memory knows how far it can be trusted.
//!
//! News that comes close together is answered together: one fetch for all budgets that moved, and a pause after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::BudgetId;
use storage::cache::{Cache, CacheUpdate};
use storage::definitions::Definitions;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::ApiMetrics;
use crate::readiness::Readiness;
use crate::tiers::memory::{Memory, Slot};
use crate::walk::Walker;

/// Between two rounds: what one budget moves meanwhile is fetched once.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a round waits for its fetches. They go on; their budgets stay marked.
const ROUND: Duration = Duration::from_millis(100);
/// Every budget read lately is confirmed this often, whatever the news.
const TICK: Duration = Duration::from_millis(500);

/// What the background task works on.
pub struct Refresher {
    /// What it keeps up.
    pub memory: Arc<Memory>,
    /// How it fetches.
    pub walker: Arc<Walker>,
    /// Where names and rules come from.
    pub definitions: Arc<dyn Definitions>,
    /// What it tells `/readyz`.
    pub readiness: Readiness,
    /// What it tells `/metrics`.
    pub metrics: ApiMetrics,
}

type Marked = BTreeMap<BudgetId, Arc<Slot>>;

impl Refresher {
    /// Runs until told to stop.
    pub async fn run(self, cache: Arc<dyn Cache>, stop: CancellationToken) {
        let mut news = Some(cache.subscribe());
        let mut changes = self.definitions.changes();
        let mut definitions_follow = true;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut marked = Marked::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                update = hear(&mut news) => self.take_in(update, &mut marked),
                changed = changes.changed(), if definitions_follow => {
                    definitions_follow = changed.is_ok();
                    self.memory.redefine(&self.definitions.catalog());
                }
                _ = tick.tick() => {
                    mark(self.memory.read_lately(), &mut marked);
                    self.report();
                }
                () = sleep(PAUSE), if !marked.is_empty() => {}
            }
            while let Some(update) = overhear(&mut news) {
                self.take_in(update, &mut marked);
            }
            if !marked.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.refresh(&mut marked) => {}
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Fetches what is marked, with nothing that began before now.
    async fn refresh(&self, marked: &mut Marked) {
        let now = Some(Instant::now());
        let (warm, cold): (Vec<_>, Vec<_>) =
            marked.values().cloned().partition(|slot| slot.is_warm());
        if !cold.is_empty() {
            // Nobody has been shown anything of these, so that the others' news need not wait for them.
            marked.retain(|_, slot| !cold.iter().any(|cold| cold.id == slot.id));
            let walker = Arc::clone(&self.walker);
            tokio::spawn(async move { walker.walk(&cold, now).await });
        }
        if timeout(ROUND, self.walker.walk(&warm, now)).await.is_ok() {
            marked.clear();
        }
    }

    fn take_in(&self, update: Heard, marked: &mut Marked) {
        match update {
            Heard::Update(CacheUpdate::Moved(budget)) => {
                self.memory.news_flows(false);
                let now = self.memory.now();
                match self.memory.slot(budget.as_str()) {
                    Some(slot) if slot.was_read_lately(now) => mark([slot], marked),
                    Some(slot) => slot.leave_behind(now),
                    None => {}
                }
            }
            Heard::Update(CacheUpdate::Resumed) => {
                self.memory.news_flows(true);
                mark(self.memory.read_lately(), marked);
            }
            // What was lost may have been an interruption: the next news says that it flows.
            Heard::Gap => {
                self.memory.news_stops();
                mark(self.memory.read_lately(), marked);
            }
            Heard::Update(CacheUpdate::Interrupted) | Heard::End => self.memory.news_stops(),
        }
    }

    fn report(&self) {
        let slots = self.memory.slots();
        let warm = slots.iter().filter(|slot| slot.is_warm()).count();
        self.metrics.memory_entries.set(i64::try_from(warm).unwrap_or(i64::MAX));
        let lately = self.memory.read_lately();
        let oldest = lately.iter().filter_map(|slot| self.memory.any(slot)).map(|shown| shown.age);
        self.metrics.staleness_seconds.set(oldest.max().unwrap_or_default().as_secs_f64());
        self.readiness.tell(&*self.definitions, warm > 0, &self.walker, &self.memory);
    }
}

fn mark(slots: impl IntoIterator<Item = Arc<Slot>>, marked: &mut Marked) {
    marked.extend(slots.into_iter().map(|slot| (slot.id.clone(), slot)));
}

/// What comes out of a subscription.
enum Heard {
    Update(CacheUpdate),
    /// News was lost, and goes on.
    Gap,
    /// There will be none any more.
    End,
}

type News = Option<broadcast::Receiver<CacheUpdate>>;

/// The next news; never again after the end.
async fn hear(news: &mut News) -> Heard {
    let Some(receiver) = news else {
        return std::future::pending().await;
    };
    match receiver.recv().await {
        Ok(update) => Heard::Update(update),
        Err(RecvError::Lagged(_)) => Heard::Gap,
        Err(RecvError::Closed) => {
            *news = None;
            Heard::End
        }
    }
}

/// News that is there already.
fn overhear(news: &mut News) -> Option<Heard> {
    match news.as_mut()?.try_recv() {
        Ok(update) => Some(Heard::Update(update)),
        Err(TryRecvError::Lagged(_)) => Some(Heard::Gap),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}
