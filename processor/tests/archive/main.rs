//! Archiving beside a processor at work: what is committed is in the archive, and of a log that was shortened everything is
//! derived anew from there, or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/logs.rs"]
mod logs;
#[path = "../support/running.rs"]
mod running;
#[path = "../support/whole.rs"]
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use processor::archive::{ArchiveProgress, Archived, archive, check_archive};
use processor::rebuild::{RebuildError, Rebuilt, rebuild};
use rusqlite::Connection;
use schemas::{PartitionId, Position};
use tokio::time::timeout;
use whole::{Fixture, TOPIC, falsify, said};

const PATIENCE: Duration = Duration::from_secs(30);

/// With an archive of its own, of nothing yet.
async fn settled() -> Fixture {
    let mut fixture = Fixture::start().await;
    fixture.archive = Some(fixture.dir.path().join("archive"));
    fixture.append(3_000).await;
    fixture.settle().await;
    fixture
}

fn dir(fixture: &Fixture) -> &Path {
    fixture.archive.as_deref().unwrap()
}

async fn archived(fixture: &Fixture) -> Vec<Archived> {
    let parts = fixture.archiving(dir(fixture));
    archive(&parts, &ArchiveProgress::default()).await.unwrap()
}

async fn faults(fixture: &Fixture) -> Vec<String> {
    let (log, progress) = (fixture.reader(), Arc::new(ArchiveProgress::default()));
    check_archive(&log, TOPIC, dir(fixture), &progress).await.unwrap().faults
}

/// Deletes what a partition has below `low`.
fn shorten(fixture: &Fixture, partition: u32, low: u64) {
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let delete = r#"DELETE FROM records WHERE partition = ?1 AND "offset" < ?2"#;
    assert!(log.execute(delete, (partition, low as i64)).unwrap() > 0);
}

/// A partition's first file in the archive.
fn segment(fixture: &Fixture, partition: u32) -> PathBuf {
    let files = fs::read_dir(dir(fixture)).unwrap().map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.filter(|path| name(path).starts_with(&format!("{partition:05}-"))).min().unwrap()
}

async fn rebuilt(fixture: &Fixture) -> Result<Rebuilt, RebuildError> {
    let log = fixture.archived_reader().await;
    let rebuilding = rebuild(fixture.store.as_ref(), &*log, false, |_| {});
    timeout(PATIENCE, rebuilding).await.expect("the rebuild takes too long")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_archived_and_gone_on_with() {
    let fixture = settled().await;
    let first = archived(&fixture).await;
    for (partition, archived) in (0..).zip(&first) {
        let end = fixture.stored(partition).await.checkpoint.position;
        let from = Position::START;
        assert_eq!(*archived, Archived { partition: PartitionId(partition), from, end });
    }
    fixture.append(500).await;
    fixture.settle().await;
    for (before, now) in first.iter().zip(archived(&fixture).await) {
        assert!(now.from == before.end && now.end > before.end, "{now:?}");
    }
    assert_eq!(faults(&fixture).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_log_is_rebuilt_and_audited_from_its_archive() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.append(200).await;
    fixture.settle().await;
    fixture.end().await;
    for Archived { partition, end, .. } in ends {
        shorten(&fixture, partition.0, end.0 - 10);
    }
    fixture.begin().await;
    fixture.settle().await;
    let Rebuilt { differences, records, .. } = rebuilt(&fixture).await.unwrap();
    assert_eq!((differences, records), (Vec::<String>::new(), 3_200));
    fixture.append(100).await;
    fixture.settle().await;
    assert_eq!(said(&fixture.audit().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rebuilt_with_a_gap_whose_place_is_named() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    let low = ends[1].end.0 - 1;
    shorten(&fixture, 1, low);
    fs::remove_file(segment(&fixture, 1)).unwrap();
    let gap =
        format!("partition 1: the archive has no records 0..{low}, and the log begins at {low}");
    assert_eq!(faults(&fixture).await, [gap]);
    let refused = rebuilt(&fixture).await.unwrap_err();
    assert!(
        matches!(refused, RebuildError::NoBeginning(PartitionId(1), Position(at)) if at == low),
        "{refused}"
    );
    fixture.archive = None;
    let refused = rebuilt(&fixture).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("partition 1 of the log begins at {low}: ")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_of_the_archive_is_not_compared_and_no_difference() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.end().await;
    shorten(&fixture, 1, ends[1].end.0 - 10);
    fs::write(segment(&fixture, 1), b"nothing").unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    let why = "partition 1: the archive cannot be read: ";
    assert!(report.unchecked[0].starts_with(why), "{:#?}", said(&report));
    assert!(report.unchecked[0].ends_with("it is too short"), "{:#?}", said(&report));
    // What differs where it can be compared is a difference all the same.
    fixture.overwrite(0, |stored| falsify(&mut stored.totals[0].1)).await;
    let report = fixture.audit().await;
    let partition = |partition| Some(PartitionId(partition));
    assert!(!report.differences.is_empty());
    let differences = report.differences.iter();
    assert!(
        differences.clone().all(|it| it.scope.partition == partition(0)),
        "{:#?}",
        said(&report)
    );
    assert!(report.unchecked[0].starts_with(why), "{:#?}", said(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_an_archive_whose_end_is_not_the_logs() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.end().await;
    let last = ends[1].end.0 - 1;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let change = r#"UPDATE records SET value = x'00' WHERE partition = 1 AND "offset" = ?1"#;
    assert_eq!(log.execute(change, [last as i64]), Ok(1));
    let [fault] = &faults(&fixture).await[..] else { panic!("one fault") };
    assert!(fault.ends_with(&format!("another record is at offset {last}")), "{fault}");
}
