//! The source thread, which delivers records to every owner: it restarts whatever ends the source.

use std::sync::Arc;
use std::time::Duration;

use processor::ProcessorDeps;
use schemas::{LogRef, PartitionCount, PartitionId, Position};
use storage::cache::memory::MemoryCache;
use storage::control::ControlTopic;
use storage::control::sqlite::SqliteControlTopic;
use storage::exports::Exports;
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::log::{
    BoundsReader, LogIdentity, LogReader, LogSource, PartitionHandler, Revocation, SourceError,
};
use storage::signals::SqliteSignalReader;
use storage::store::Checkpoints;
use storage::store::memory::MemoryStore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::process::{EAGER, TestBounds, id, identity};
use crate::running_processor::RunningProcessor;
use crate::single_log::SingleLogOpener;
use crate::support::dead_letters::NoDeadLetters;
use crate::support::log::Log;
use crate::support::store::FaultyStore;

/// A source that panics in its first run. Its second run delivers the whole log.
struct PanickingSource {
    log: Log,
    runs: u32,
}

impl LogSource for PanickingSource {
    fn identity(&self) -> LogIdentity {
        identity()
    }

    fn run(
        &mut self,
        _: &LogRef,
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        self.runs += 1;
        let partition = PartitionId(0);
        let bounds = Arc::new(TestBounds::default());
        bounds.set(partition.0, self.log.bounds());
        handler.assigned(&[partition], &(bounds as Arc<dyn BoundsReader>));
        while handler.take_starts().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        handler.deliver(self.log.batch(0, 40), Duration::ZERO).unwrap();
        assert!(self.runs > 1, "a bug in the source, for this test");
        handler.deliver(self.log.batch(40, 100), Duration::ZERO).unwrap();
        while !stop.is_cancelled() {
            assert!(!handler.wants_to_rejoin(), "the coordinator asks for a rejoin");
            std::thread::sleep(Duration::from_millis(1));
        }
        handler.revoked(&[partition], Revocation::Released);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_panics_is_restarted_and_no_record_is_lost_or_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultyStore::default());
    // Records come from the source alone; there is no shadow generation.
    let one = PartitionCount::new(1).unwrap();
    let path = dir.path().join("log.db");
    let log = Arc::new(SqliteLog::open(&path, one).unwrap());
    let reader: Arc<dyn LogReader> = Arc::new(SqliteReader::open(&path, one).unwrap());
    let deps = ProcessorDeps {
        logs: Arc::new(SingleLogOpener {
            with_archive: Arc::clone(&reader),
            without_archive: reader,
        }),
        source: Box::new(PanickingSource { log: Log::of(100), runs: 0 }),
        first_log: LogRef::first("submissions", one),
        dead_letters: Arc::new(NoDeadLetters),
        dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
        writer: log,
        store: Arc::clone(&store) as _,
        jobs: Arc::new(MemoryStore::new()),
        cache: Arc::new(MemoryCache::new()),
        control: ControlTopic::new(SqliteControlTopic::open(&dir.path().join("d.db")).unwrap()),
        archive_dir: None,
        exports: Exports::new(dir.path()),
        signals: Arc::new(SqliteSignalReader::new(&dir.path().join("signals.db"))),
    };
    let running = RunningProcessor::start(deps, EAGER).await;
    let stored = async || store.inner.read_partition(id(0)).await.unwrap();
    until("every record is committed", async || {
        stored().await.is_some_and(|stored| stored.checkpoint.position == Position(100))
    })
    .await;
    assert!(running.health.is_ready());
    let metrics = running.metrics.clone();
    running.stop().await;
    let checkpoint = stored().await.unwrap().checkpoint;
    assert_eq!((checkpoint.position, checkpoint.tally.applied), (Position(100), 100));
    // One rejoin, for the panic: the first run left nothing behind that ended the second.
    let shown = String::from_utf8(metrics.render()).unwrap();
    assert!(shown.contains("allocator_processor_rejoins_total 1\n"), "{shown}");
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
