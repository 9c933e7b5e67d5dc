//! Confirming that the cache has the owned totals: a few budgets at a time, positions first, next to the flushes.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use storage::cache::CacheError;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;

use super::pending_totals::PendingBudget;
use super::{Publisher, RETRY_DELAY};

/// Budgets that are confirmed at the same time. They share the round trips; a flush waits for so many comparisons at
/// most.
const MAX_CONCURRENT_CONFIRMATIONS: usize = 16;

/// The budgets that are being confirmed. Those that the cache rejects wait for the next pass, so that they do not block
/// the others.
#[derive(Default)]
struct Pass {
    budgets: VecDeque<PendingBudget>,
    error: Option<CacheError>,
}

impl Publisher {
    /// Confirms everything that is owned at each interval and after each change of the definitions, and new partitions
    /// at once.
    pub(super) async fn confirm_until(&self, interval: Duration, stop: &CancellationToken) {
        let mut definitions = self.definitions.changes();
        let mut due = tokio::time::interval(interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pass, mut healthy, mut next_at) = (Pass::default(), true, Instant::now());
        loop {
            let idle = pass.budgets.is_empty() && !self.totals.lock().has_unconfirmed();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = due.tick() => self.confirm_all(),
                Ok(()) = definitions.changed() => self.confirm_all(),
                () = self.confirmation_due.notified(), if idle => {}
                () = sleep_until(next_at), if !idle => {
                    if self.confirm_next(&mut pass).await {
                        continue;
                    }
                    let error = pass.error.take();
                    match &error {
                        None if !healthy => tracing::info!("confirming totals in the cache recovered"),
                        Some(error) if healthy => {
                            tracing::warn!(%error, "failed to confirm totals in the cache, retrying");
                        }
                        _ => {}
                    }
                    healthy = error.is_none();
                    if !healthy {
                        self.metrics.publish_failed();
                        next_at = Instant::now() + RETRY_DELAY;
                    }
                }
            }
        }
        // What is still unconfirmed may be committed by an owner that is gone.
        pass.budgets.extend(self.totals.lock().take_unconfirmed());
        while self.confirm_next(&mut pass).await {}
        if let Some(error) = pass.error {
            tracing::warn!(%error, "failed to confirm the last totals, the next owner confirms them");
        }
    }

    /// Confirms the next budgets of the pass, or of a new one if it is empty. Returns whether the pass goes on.
    async fn confirm_next(&self, pass: &mut Pass) -> bool {
        if pass.budgets.is_empty() {
            pass.budgets = self.totals.lock().take_unconfirmed().into();
        }
        let count = pass.budgets.len().min(MAX_CONCURRENT_CONFIRMATIONS);
        let next: Vec<PendingBudget> = pass.budgets.drain(..count).collect();
        let outcomes = join_all(next.iter().map(|totals| self.confirm(totals))).await;
        for (totals, outcome) in next.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                self.totals.lock().restore_unconfirmed(totals);
                pass.error.get_or_insert(error);
            }
        }
        !pass.budgets.is_empty()
    }

    /// Publishes those totals of a budget that the cache lacks.
    async fn confirm(&self, totals: &PendingBudget) -> Result<(), CacheError> {
        let PendingBudget { budget, term, count, .. } = totals;
        let positions = totals.positions();
        let outdated = self.cache.outdated_partitions(budget, *term, *count, &positions).await?;
        if outdated.is_empty() {
            return Ok(());
        }
        let outdated = HashSet::<_>::from_iter(outdated);
        let partitions = totals.to_partition_totals(|partition| outdated.contains(&partition));
        self.cache.publish(budget, *count, &partitions).await
    }

    /// Makes the totals of every owned partition unconfirmed.
    pub(super) fn confirm_all(&self) {
        self.totals.lock().confirm_all(&self.definitions.catalog());
    }
}
