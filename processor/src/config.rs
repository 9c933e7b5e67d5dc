//! The settings of the processor.

use std::net::SocketAddr;
use std::time::Duration;

use engine::partition::{DeadLetterThresholds, PartitionLimits};
use runtime::config::{KeyDoc, Reader, parse, settings};

settings! {
    /// The settings as configured, one field per key.
    struct ProcessorSettings {
        /// Listen address of health and metrics.
        listen: SocketAddr = "processor.listen", default "127.0.0.1:8003",
            unit "address:port", parse parse::socket_addr;
        /// Minimum time between two commits of a partition.
        commit_interval: Duration = "processor.commit_interval_ms", default "20",
            unit "ms", parse parse::positive_duration_ms;
        /// Time between two commits of a partition that is catching up.
        catch_up_commit_interval: Duration = "processor.catch_up_commit_interval_ms", default "500",
            unit "ms", parse parse::positive_duration_ms;
        /// Lag from which a partition counts as catching up.
        catch_up_lag: u64 = "processor.catch_up_lag", default "10000",
            unit "records", parse parse::positive_u64;
        /// Maximum number of records of a partition folded ahead of its commit; reading pauses beyond.
        max_uncommitted: u64 = "processor.max_uncommitted", default "500000",
            unit "records", parse parse::positive_u64;
        /// Time between two rounds of writing person rows, behind the commit.
        rows_interval: Duration = "processor.rows_interval_ms", default "200",
            unit "ms", parse parse::positive_duration_ms;
        /// Number of records a takeover would replay at which a partition that is catching up writes its person rows.
        max_replay: u64 = "processor.max_replay", default "500000",
            unit "records", parse parse::positive_u64;
        /// Consecutive rejected records that halt their partition instead of becoming dead letters.
        dead_letter_run: u64 = "processor.dead_letter_run", default "1000",
            unit "records", parse parse::positive_u64;
        /// Share of rejected records among 10000 beyond which their partition halts; 100 disables this limit.
        dead_letter_percent: u64 = "processor.dead_letter_percent", default "20",
            unit "percent", parse percent;
        /// Interval for comparing the cache with all totals and publishing what it lacks, which repairs an emptied
        /// cache.
        republish_interval: Duration = "processor.republish_interval_ms", default "2000",
            unit "ms", parse parse::positive_duration_ms;
        /// Time for one attempt to claim a partition; it is repeated after at most 5 s, and the other partitions are
        /// folded meanwhile.
        claim_timeout: Duration = "processor.claim_timeout_ms", default "3000",
            unit "ms", parse parse::positive_duration_ms;
    }
}

/// The keys of the processor, for the configuration reference.
pub const KEYS: &[KeyDoc] = ProcessorSettings::KEYS;

/// Settings of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorConfig {
    /// Listen address of health and metrics.
    pub listen: SocketAddr,
    /// Pacing and limits of each partition.
    pub limits: PartitionLimits,
    /// Interval for publishing all totals again.
    pub republish_interval: Duration,
    /// Time to claim assigned partitions before the claimed ones are folded without the rest.
    pub claim_timeout: Duration,
}

impl ProcessorConfig {
    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ProcessorSettings::read(reader)?;
        Some(Self {
            listen: settings.listen,
            limits: PartitionLimits {
                commit_interval: settings.commit_interval,
                catch_up_commit_interval: settings.catch_up_commit_interval,
                catch_up_lag: settings.catch_up_lag,
                max_uncommitted: settings.max_uncommitted,
                rows_interval: settings.rows_interval,
                max_replay: settings.max_replay,
                dead_letters: DeadLetterThresholds {
                    run: settings.dead_letter_run,
                    percent: settings.dead_letter_percent,
                },
            },
            republish_interval: settings.republish_interval,
            claim_timeout: settings.claim_timeout,
        })
    }
}

fn percent(text: &str) -> Result<u64, String> {
    let percent = parse::positive_u64(text).ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "expected a whole number from 1 to 100".to_owned())
}
