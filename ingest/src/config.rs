//! The settings of ingest.

use std::net::SocketAddr;

use runtime::config::{Key, KeyDoc, Reader, parse};

use crate::admin::AdminToken;
use crate::parse::MAX_ITEMS;

/// How ingest is set up.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Where the process of its own listens.
    pub listen: SocketAddr,
    /// Records that may wait for the log's acknowledgement at once; one more is refused.
    pub max_in_flight_records: usize,
    /// What administrators show; without one, only clients on this machine are administrators.
    pub admin_token: Option<AdminToken>,
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
    const ADMIN_TOKEN: Key<Option<AdminToken>> = Key::new(
        "admin.token_file",
        Some(""),
        "path",
        "A file with the token that administrators send as `Authorization: Bearer`; without one, only clients on the \
         same machine are administrators.",
        AdminToken::read_file,
    );

    /// The settings of this crate.
    pub const KEYS: &[KeyDoc] = &[
        Self::LISTEN.describe(),
        Self::MAX_IN_FLIGHT_RECORDS.describe(),
        Self::ADMIN_TOKEN.describe(),
    ];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.read(&Self::LISTEN);
        let max_in_flight_records = reader.read(&Self::MAX_IN_FLIGHT_RECORDS);
        let admin_token = reader.read(&Self::ADMIN_TOKEN);
        Some(Self {
            listen: listen?,
            max_in_flight_records: max_in_flight_records?,
            admin_token: admin_token?,
        })
    }
}

/// With less, a full batch could never be taken.
fn at_least_a_batch(text: &str) -> Result<usize, String> {
    match parse::positive_usize(text) {
        Ok(records) if records >= MAX_ITEMS => Ok(records),
        _ => Err(format!("expected a whole number, at least {MAX_ITEMS}")),
    }
}
