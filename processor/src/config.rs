//! The processor's settings.

use std::net::SocketAddr;
use std::time::Duration;

use runtime::config::{Key, KeyDoc, Reader, parse};

use crate::partition::{Limits, StormLimits};

const LISTEN: Key<SocketAddr> = Key::new(
    "processor.listen",
    Some("127.0.0.1:8003"),
    "address:port",
    "Where health and metrics are served.",
    parse::socket_addr,
);
const COMMIT_INTERVAL: Key<Duration> = Key::new(
    "processor.commit_interval_ms",
    Some("20"),
    "ms",
    "The least time between two commits of a partition.",
    parse::positive_duration_ms,
);
const CATCH_UP_COMMIT_INTERVAL: Key<Duration> = Key::new(
    "processor.catch_up_commit_interval_ms",
    Some("500"),
    "ms",
    "The time between two commits of a partition that is far behind.",
    parse::positive_duration_ms,
);
const CATCH_UP_LAG: Key<u64> = Key::new(
    "processor.catch_up_lag",
    Some("10000"),
    "records",
    "From how many unread records on a partition counts as far behind.",
    parse::positive_u64,
);
const MAX_UNCOMMITTED: Key<u64> = Key::new(
    "processor.max_uncommitted",
    Some("500000"),
    "records",
    "How many records of a partition may be folded ahead of its commit; beyond, reading it pauses.",
    parse::positive_u64,
);
const ROWS_INTERVAL: Key<Duration> = Key::new(
    "processor.rows_interval_ms",
    Some("200"),
    "ms",
    "The time between two rounds of writing people's rows behind the commit.",
    parse::positive_duration_ms,
);
const MAX_REPLAY: Key<u64> = Key::new(
    "processor.max_replay",
    Some("500000"),
    "records",
    "People's rows of a partition that is far behind are written once a take-over would replay this many records.",
    parse::positive_u64,
);
const DEAD_LETTER_RUN: Key<u64> = Key::new(
    "processor.dead_letter_run",
    Some("1000"),
    "records",
    "So many records in a row that cannot be taken halt their partition instead of becoming dead letters.",
    parse::positive_u64,
);
const DEAD_LETTER_PERCENT: Key<u64> = Key::new(
    "processor.dead_letter_percent",
    Some("20"),
    "percent",
    "More than this share of ten thousand records halts their partition as well; 100 never does.",
    parse_percent,
);
const REPUBLISH_INTERVAL: Key<Duration> = Key::new(
    "processor.republish_interval_ms",
    Some("2000"),
    "ms",
    "How often everything is published again, so that an emptied cache heals.",
    parse::positive_duration_ms,
);
const CLAIM_TIMEOUT: Key<Duration> = Key::new(
    "processor.claim_timeout_ms",
    Some("3000"),
    "ms",
    "How long partitions may take to be claimed before the others are folded without; those are tried again 15 s later.",
    parse::positive_duration_ms,
);

/// Every key of this crate.
pub const KEYS: &[KeyDoc] = &[
    LISTEN.describe(),
    COMMIT_INTERVAL.describe(),
    CATCH_UP_COMMIT_INTERVAL.describe(),
    CATCH_UP_LAG.describe(),
    MAX_UNCOMMITTED.describe(),
    ROWS_INTERVAL.describe(),
    MAX_REPLAY.describe(),
    DEAD_LETTER_RUN.describe(),
    DEAD_LETTER_PERCENT.describe(),
    REPUBLISH_INTERVAL.describe(),
    CLAIM_TIMEOUT.describe(),
];

/// The processor's settings.
#[derive(Debug, Clone)]
pub struct ProcessorConfig {
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// How each partition's owner paces itself.
    pub limits: Limits,
    /// How often everything is published again.
    pub republish_interval: Duration,
    /// How long partitions may take to be claimed before the others begin without.
    pub claim_timeout: Duration,
}

impl ProcessorConfig {
    /// Reads the settings; `None` once faults were noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.read(&LISTEN);
        let commit_interval = reader.read(&COMMIT_INTERVAL);
        let catch_up_commit_interval = reader.read(&CATCH_UP_COMMIT_INTERVAL);
        let catch_up_lag = reader.read(&CATCH_UP_LAG);
        let max_uncommitted = reader.read(&MAX_UNCOMMITTED);
        let rows_interval = reader.read(&ROWS_INTERVAL);
        let max_replay = reader.read(&MAX_REPLAY);
        let dead_letter_run = reader.read(&DEAD_LETTER_RUN);
        let dead_letter_percent = reader.read(&DEAD_LETTER_PERCENT);
        let republish_interval = reader.read(&REPUBLISH_INTERVAL);
        let claim_timeout = reader.read(&CLAIM_TIMEOUT);
        Some(Self {
            listen: listen?,
            limits: Limits {
                commit_interval: commit_interval?,
                catch_up_commit_interval: catch_up_commit_interval?,
                catch_up_lag: catch_up_lag?,
                max_uncommitted: max_uncommitted?,
                rows_interval: rows_interval?,
                max_replay: max_replay?,
                storm: StormLimits { run: dead_letter_run?, percent: dead_letter_percent? },
            },
            republish_interval: republish_interval?,
            claim_timeout: claim_timeout?,
        })
    }
}

fn parse_percent(text: &str) -> Result<u64, String> {
    let percent = parse::positive_u64(text).ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "expected a whole number from 1 to 100".to_owned())
}
