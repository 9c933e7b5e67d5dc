//! The source's thread: it feeds every owner, so it begins again whatever ends it.

use std::sync::Arc;
use std::time::Duration;

use processor::ProcessorParts;
use schemas::{LogRef, PartitionCount, PartitionId, Position};
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::exports::Exports;
use storage::log::sqlite::{SqliteLetterBook, SqliteLog, SqliteReader};
use storage::log::{LogIdentity, LogReader, LogSource, PartitionHandler, SourceError};
use storage::store::Store;
use storage::store::memory::MemoryStore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::process::{EAGER, id, identity};
use crate::running::Running;
use crate::support::letters::NoLetters;
use crate::support::log::Log;
use crate::support::logs::OneLog;
use crate::support::store::FaultyStore;

/// A source that panics in the middle of its first run, and delivers the whole log in its second.
struct Panicking {
    log: Log,
    runs: u32,
}

impl LogSource for Panicking {
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
        handler.assigned(&[(partition, self.log.bounds())]);
        handler.deliver(self.log.batch(0, 40), Duration::ZERO).unwrap();
        assert!(self.runs > 1, "a bug of the source, for this test");
        handler.deliver(self.log.batch(40, 100), Duration::ZERO).unwrap();
        while !stop.is_cancelled() {
            assert!(!handler.wants_to_rejoin(), "an owner of the run before is left");
            std::thread::sleep(Duration::from_millis(1));
        }
        handler.revoked(&[partition], false);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_panics_is_begun_again_and_nothing_is_lost_or_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultyStore::default());
    // What is folded is the source's; nothing is folded beside it.
    let one = PartitionCount::new(1).unwrap();
    let path = dir.path().join("log.db");
    let log = Arc::new(SqliteLog::open(&path, one).unwrap());
    let reader: Arc<dyn LogReader> = Arc::new(SqliteReader::open(&path, one).unwrap());
    let parts = ProcessorParts {
        logs: Arc::new(OneLog { log: Arc::clone(&reader), alone: reader }),
        source: Box::new(Panicking { log: Log::of(100), runs: 0 }),
        first_log: LogRef::first("submissions", one),
        dead_letters: Arc::new(NoLetters),
        letters: Arc::new(SqliteLetterBook::open(&path).unwrap()),
        writer: log,
        store: Arc::clone(&store) as _,
        jobs: Arc::new(MemoryStore::new()),
        cache: Arc::new(MemoryCache::new()),
        definitions: Arc::new(SqliteDefinitions::open(&dir.path().join("d.db")).unwrap()),
        archive_dir: None,
        exports: Exports::new(dir.path()),
    };
    let running = Running::start(parts, EAGER).await;
    let stored = async || store.inner.read_partition(id(0)).await.unwrap();
    until("everything is committed", async || {
        stored().await.is_some_and(|stored| stored.checkpoint.position == Position(100))
    })
    .await;
    assert!(running.health.is_ready());
    let metrics = running.metrics.clone();
    running.end().await;
    let checkpoint = stored().await.unwrap().checkpoint;
    assert_eq!((checkpoint.position, checkpoint.tally.applied), (Position(100), 100));
    // Once, for the panic: nothing that the first run left behind has disturbed the second.
    let shown = String::from_utf8(metrics.render()).unwrap();
    assert!(shown.contains("allocator_processor_rejoins_total 1\n"), "{shown}");
}

async fn until(what: &str, there: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !there().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
