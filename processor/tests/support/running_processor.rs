//! A running processor on given dependencies. Not every test uses all of it.
#![allow(dead_code)]

use std::time::Duration;

use engine::partition::PartitionLimits;
use processor::{Processor, ProcessorConfig, ProcessorDeps};
use runtime::health::{Health, HealthConfig};
use runtime::metrics::Metrics;
use tokio_util::sync::CancellationToken;

pub struct RunningProcessor {
    pub metrics: Metrics,
    pub health: Health,
    processor: Processor,
    stop: CancellationToken,
}

impl RunningProcessor {
    pub async fn start(deps: ProcessorDeps, limits: PartitionLimits) -> Self {
        let config = ProcessorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            limits,
            republish_interval: Duration::from_secs(1),
            claim_timeout: Duration::from_secs(3),
        };
        let immediate = HealthConfig { unready_after: Duration::ZERO, ready_after: Duration::ZERO };
        let (metrics, health) = (Metrics::new("test"), Health::new(&immediate));
        let stop = CancellationToken::new();
        let started = Processor::start(&config, deps, &metrics, &health, stop.clone()).await;
        Self { metrics, health, processor: started.unwrap(), stop }
    }

    /// Waits until the processor ends by itself, and returns why.
    pub async fn halted(self) -> String {
        self.processor.stopping().cancelled().await;
        self.processor.stopped().await.unwrap_err().to_string()
    }

    /// Stops the processor. Everything it folded is committed when this returns.
    pub async fn stop(self) {
        self.stop.cancel();
        self.processor.stopped().await.unwrap();
    }
}
