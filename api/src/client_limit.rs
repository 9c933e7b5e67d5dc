//! Bounds and counts the reads that wait for a submission, in total and per client.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::client_network::ClientNetwork;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;

/// Limits how many reads may wait at once.
#[derive(Debug)]
pub struct WaiterLimit {
    max: usize,
    max_per_client: usize,
    waiting: Mutex<Waiting>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    /// Clients without waiting reads have no entry.
    by_client: HashMap<ClientNetwork, usize>,
}

/// Permission to wait; released when dropped.
#[derive(Debug)]
pub struct WaiterPermit<'a> {
    limit: &'a WaiterLimit,
    client: ClientNetwork,
}

impl WaiterLimit {
    /// Creates the limits.
    pub fn new(config: &ApiConfig, metrics: &ApiMetrics) -> Self {
        Self {
            max: config.max_waiters,
            max_per_client: config.max_waiters_per_client,
            waiting: Mutex::default(),
            gauge: metrics.waiting.clone(),
        }
    }

    /// Acquires a permit.
    ///
    /// # Errors
    /// When all permits are taken, or all permits of this client.
    pub fn try_acquire(&self, client: ClientNetwork) -> Result<WaiterPermit<'_>, NoAnswer> {
        let mut waiting = self.lock();
        let of_client = waiting.by_client.get(&client).copied().unwrap_or_default();
        if client.is_known() && of_client >= self.max_per_client {
            return Err(NoAnswer::TooManyWaitersOfClient);
        }
        if waiting.total >= self.max {
            return Err(NoAnswer::TooManyWaiters);
        }
        waiting.total += 1;
        waiting.by_client.insert(client, of_client + 1);
        self.gauge.inc();
        Ok(WaiterPermit { limit: self, client })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaiterPermit<'_> {
    fn drop(&mut self) {
        let mut waiting = self.limit.lock();
        waiting.total = waiting.total.saturating_sub(1);
        match waiting.by_client.get_mut(&self.client) {
            Some(of_client) if *of_client > 1 => *of_client -= 1,
            _ => {
                waiting.by_client.remove(&self.client);
            }
        }
        self.limit.gauge.dec();
    }
}
