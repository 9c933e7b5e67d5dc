//! Bounds and counts what clients keep open (waiting reads, streams), in total and per client.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use runtime::client::ClientNetwork;

/// Limits how many permits are held at once.
#[derive(Debug)]
pub struct ClientLimit {
    max: usize,
    max_per_client: usize,
    held: Mutex<HeldPermits>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct HeldPermits {
    total: usize,
    /// Clients without permits have no entry.
    by_client: HashMap<ClientNetwork, usize>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// All permits are taken.
    Total,
    /// All permits of this client are taken.
    OfClient,
}

/// Permission to wait or to stream; released when dropped.
#[derive(Debug)]
pub struct ClientPermit {
    limit: Arc<ClientLimit>,
    client: ClientNetwork,
}

impl ClientLimit {
    /// Creates the limits. `gauge` shows how many permits are held.
    pub fn new(max: usize, max_per_client: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { max, max_per_client, held: Mutex::default(), gauge })
    }

    /// Acquires a permit.
    ///
    /// # Errors
    /// When all permits are taken, or all permits of this client.
    pub fn try_acquire(
        self: &Arc<Self>,
        client: ClientNetwork,
    ) -> Result<ClientPermit, LimitReached> {
        let mut held = self.held.lock();
        let of_client = held.by_client.get(&client).copied().unwrap_or_default();
        if client.is_known() && of_client >= self.max_per_client {
            return Err(LimitReached::OfClient);
        }
        if held.total >= self.max {
            return Err(LimitReached::Total);
        }
        held.total += 1;
        held.by_client.insert(client, of_client + 1);
        self.gauge.inc();
        Ok(ClientPermit { limit: Arc::clone(self), client })
    }

    /// Returns how many permits are held.
    pub fn held(&self) -> usize {
        self.held.lock().total
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut held = self.limit.held.lock();
        held.total = held.total.saturating_sub(1);
        match held.by_client.get_mut(&self.client) {
            Some(of_client) if *of_client > 1 => *of_client -= 1,
            _ => {
                held.by_client.remove(&self.client);
            }
        }
        self.limit.gauge.dec();
    }
}
