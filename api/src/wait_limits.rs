//! Bounds the reads that wait for submissions. Reads with unsigned receipts, which anyone can make up, have lower
//! limits of their own.

use std::sync::Arc;

use runtime::client::ClientNetwork;
use schemas::ReceiptProof;

use crate::client_limit::{ClientLimit, ClientPermit};
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;

/// Waits with unsigned receipts get one in so many permits: such a receipt may be made up.
const UNSIGNED_DIVISOR: usize = 10;

/// Limits of waiting reads.
#[derive(Debug, Clone)]
pub struct WaitLimits {
    signed: Arc<ClientLimit>,
    unsigned: Arc<ClientLimit>,
}

impl WaitLimits {
    /// Creates the limits of the configuration.
    pub fn new(config: &ApiConfig, metrics: &ApiMetrics) -> Self {
        let (max, max_per_client) = (config.max_waiters, config.max_waiters_per_client);
        let limit = |divisor: usize| {
            let gauge = metrics.waiting.clone();
            ClientLimit::new(max.div_ceil(divisor), max_per_client.div_ceil(divisor), gauge)
        };
        Self { signed: limit(1), unsigned: limit(UNSIGNED_DIVISOR) }
    }

    /// Acquires a permit to wait for a receipt.
    ///
    /// # Errors
    /// When too many reads wait, or too many of this client.
    pub fn try_acquire(
        &self,
        proof: ReceiptProof,
        client: ClientNetwork,
    ) -> Result<ClientPermit, NoAnswer> {
        let limit = match proof {
            ReceiptProof::Signed => &self.signed,
            ReceiptProof::Unsigned => &self.unsigned,
        };
        limit.try_acquire(client).map_err(NoAnswer::of_waiting)
    }
}
