//! The settings of ingest.

use std::net::SocketAddr;

use runtime::config::{Key, KeyDoc, Reader, parse};

use crate::parse::MAX_ITEMS;

/// How ingest is set up.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Where the process of its own listens.
    pub listen: SocketAddr,
    /// Records that may wait for the log's acknowledgement at once; one more is refused.
    pub max_in_flight_records: usize,
}

impl IngestConfig {
    const LISTEN: Key<SocketAddr> = Key::new(
        "ingest.listen",
        Some("127.0.0.1:8001"),
        "address:port",
        "Where `ingest` listens when it is a process of its own.",
        parse::socket_addr,
    );
    const MAX_IN_FLIGHT_RECORDS: Key<usize> = Key::new(
        "ingest.max_in_flight_records",
        Some("100000"),
        "records",
        "Records that may wait for the log at once; requests beyond it are answered 503.",
        at_least_a_batch,
    );

    /// The settings of this crate.
    pub const KEYS: &[KeyDoc] = &[Self::LISTEN.describe(), Self::MAX_IN_FLIGHT_RECORDS.describe()];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.read(&Self::LISTEN);
        let max_in_flight_records = reader.read(&Self::MAX_IN_FLIGHT_RECORDS);
        Some(Self { listen: listen?, max_in_flight_records: max_in_flight_records? })
    }
}

/// With less, a full batch could never be taken.
fn at_least_a_batch(text: &str) -> Result<usize, String> {
    match parse::positive_usize(text) {
        Ok(records) if records >= MAX_ITEMS => Ok(records),
        _ => Err(format!("expected a whole number, at least {MAX_ITEMS}")),
    }
}
