//! A processor that runs on given places. Not every test looks at all of it.
#![allow(dead_code)]

use std::time::Duration;

use processor::partition::Limits;
use processor::{Processor, ProcessorConfig, ProcessorParts};
use runtime::health::{Health, HealthConfig};
use runtime::metrics::Metrics;
use tokio_util::sync::CancellationToken;

pub struct Running {
    pub metrics: Metrics,
    pub health: Health,
    processor: Processor,
    stop: CancellationToken,
}

impl Running {
    pub async fn start(parts: ProcessorParts, limits: Limits) -> Self {
        let config = ProcessorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            limits,
            republish_interval: Duration::from_secs(1),
            claim_timeout: Duration::from_secs(3),
        };
        let now = HealthConfig { unready_after: Duration::ZERO, ready_after: Duration::ZERO };
        let (metrics, health) = (Metrics::new("test"), Health::new(&now));
        let stop = CancellationToken::new();
        let started = Processor::start(&config, parts, &metrics, &health, stop.clone()).await;
        Self { metrics, health, processor: started.unwrap(), stop }
    }

    /// Ends it; everything that it has folded is committed then.
    pub async fn end(self) {
        self.stop.cancel();
        self.processor.stopped().await;
    }
}
