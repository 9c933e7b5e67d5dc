//! The settings of ingest.

use std::net::SocketAddr;

use runtime::config::{parse, settings};

use crate::parse::MAX_ITEMS;

settings! {
    /// Settings of ingest.
    #[derive(Debug, Clone)]
    pub struct IngestConfig {
        /// Listen address of the `ingest` service.
        pub listen: SocketAddr = "ingest.listen", default "127.0.0.1:8001",
            unit "address:port", parse parse::socket_addr;
        /// Size of each of three queues of records: those waiting for the log's acknowledgement, the first ones of a budget
        /// waiting until its rules are frozen, and acknowledged ones waiting for the confirmation that their budget was not
        /// closed; further requests are answered 503. In each, batches leave a fourth to single submissions, so a batch can
        /// have three fourths of it at most.
        pub max_in_flight_records: usize = "ingest.max_in_flight_records", default "100000",
            unit "records", parse at_least_a_batch;
        /// Whether digests of each submission's network, user agent and ballot are kept for seven days, to notice fraud.
        pub signals_enabled: bool = "signals.enabled", default "true",
            unit "true, false", parse parse::switch;
    }
}

/// Parses the limit. Below the size of a full batch, that batch could never be accepted.
fn at_least_a_batch(text: &str) -> Result<usize, String> {
    match parse::positive_usize(text) {
        Ok(records) if records >= MAX_ITEMS => Ok(records),
        _ => Err(format!("expected a whole number, at least {MAX_ITEMS}")),
    }
}
