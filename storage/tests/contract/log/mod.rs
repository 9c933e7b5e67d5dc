//! The contract of every log.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::LogRef;
use storage::log::{
    DeadLetter, DeadLetterJournal, DeadLetterWriter, LogReader, LogSource, LogWriter, NewRecord,
};

use super::wait::{TEST_TIMEOUT, until};

mod appending;
mod consuming;
mod dead_letters;
mod owner;
mod reading;
mod records;
mod running_source;
pub use appending::*;
pub use consuming::*;
pub use dead_letters::*;
pub use owner::{Owner, Read};
pub use reading::*;
pub use records::{append, as_read, record};
pub use running_source::RunningSource;

pub const PARTITIONS: u32 = 3;

pub type DeadLettersFuture = Pin<Box<dyn Future<Output = Vec<DeadLetter>> + Send>>;

pub struct Fixture {
    pub log: LogRef,
    /// Of an empty log with [`PARTITIONS`] partitions.
    pub writer: Arc<dyn LogWriter>,
    pub source: Mutex<Option<Box<dyn LogSource>>>,
    pub reader: Arc<dyn LogReader>,
    pub dead_letter_writer: Arc<dyn DeadLetterWriter>,
    pub dead_letter_journal: Arc<dyn DeadLetterJournal>,
    /// Reads every dead letter once, in no order.
    pub read_dead_letters: Box<dyn Fn() -> DeadLettersFuture + Sync>,
    /// Resources that are deleted with the fixture: a folder, topics.
    pub _kept: Box<dyn Any + Send + Sync>,
}

macro_rules! log_contract {
    ($fixture:expr) => {
        crate::contract::properties! { log, $fixture;
            offsets_in_each_partition_are_contiguous_from_zero,
            appending_no_records_returns_no_results,
            concurrent_appends_get_unique_contiguous_offsets,
            records_are_consumed_in_append_order,
            each_partition_is_consumed_from_its_start_position,
            single_records_are_delivered_without_waiting_for_a_batch,
            a_full_queue_neither_loses_nor_repeats_nor_reorders_records,
            a_full_queue_does_not_stop_other_partitions,
            a_paused_partition_is_not_consumed,
            a_partition_starts_and_stops_at_any_time_and_the_others_are_read_on,
            a_start_position_beyond_the_log_is_reported_and_the_others_are_read_on,
            the_high_watermark_reaches_the_end_of_the_log,
            stopping_revokes_all_partitions_and_the_source_can_run_again,
            a_rejoin_assigns_the_partitions_again,
            a_dead_letter_appended_twice_is_stored_once,
            the_journal_returns_each_dead_letter_before_its_decisions_in_order,
            any_range_can_be_read_while_the_log_is_consumed,
            a_stream_follows_an_advancing_end_and_never_passes_it,
            reading_ends_when_the_stream_is_closed,
            reading_beyond_the_log_reports_a_missing_record,
        }
    };
}
pub(crate) use log_contract;

/// Appends the records `numbers` to one partition.
async fn fill(fixture: &Fixture, partition: u32, numbers: std::ops::Range<u64>) -> Vec<NewRecord> {
    let records: Vec<_> = numbers.map(|number| record(partition, number)).collect();
    // A write has a second, which on a busy machine is short for twenty thousand records.
    for some in records.chunks(2_000) {
        append(&*fixture.writer, some).await;
    }
    records
}

impl Fixture {
    fn run(&self, owner: &Arc<Owner>) -> RunningSource {
        RunningSource::start(self.source.lock().take().unwrap(), &self.log, owner)
    }
}

async fn assert_read(owner: &Owner, partition: u32, expected: &[Read]) {
    let enough = async || owner.read(partition).len() >= expected.len();
    until("the owner has received all appended records", TEST_TIMEOUT, enough).await;
    // Not assert_eq: its message would have megabytes.
    assert!(owner.read(partition) == expected, "partition {partition} was not read as appended");
}
