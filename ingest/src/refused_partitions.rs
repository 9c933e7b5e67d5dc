//! Exports the log's partitions of which every submission is refused: each scrape shows the current ones.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use storage::log::LogWriter;

/// Reads the refused partitions from the log at each scrape.
pub(crate) struct RefusedPartitions {
    log: Arc<dyn LogWriter>,
    refused: IntGaugeVec,
}

impl RefusedPartitions {
    pub fn of(log: Arc<dyn LogWriter>) -> Result<Self, prometheus::Error> {
        let refused = IntGaugeVec::new(
            Opts::new(
                "allocator_ingest_partition_refused",
                "1 while submissions to the partition are answered 503 at once, because its leader does not respond.",
            ),
            &["partition"],
        )?;
        Ok(Self { log, refused })
    }
}

impl Collector for RefusedPartitions {
    fn desc(&self) -> Vec<&Desc> {
        self.refused.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refused.reset();
        for partition in self.log.refused_partitions() {
            self.refused.with_label_values(&[partition.to_string()]).set(1);
        }
        self.refused.collect()
    }
}
