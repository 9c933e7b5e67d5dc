//! Archiving next to a running processor: the archive has all committed records, and a truncated log is rebuilt from
//! its archive completely or not at all. So is one that was trimmed, as far as no takeover needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/fixture.rs"]
mod fixture;
#[path = "../support/rebuild.rs"]
mod rebuild;
#[path = "../support/running_processor.rs"]
mod running_processor;
#[path = "../support/single_log.rs"]
mod single_log;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixture::{Fixture, TOPIC, move_one_person, report_lines};
use generations::rebuild::{RebuildError, target_positions};
use operations::annulment::people_annulled_by;
use operations::archive::{ArchiveError, Archived, Trimmed, archive, check_archive, trim};
use operations::progress::Progress;
use rebuild::{RebuildOutcome, rebuild};
use rusqlite::Connection;
use schemas::{AnnulmentId, Generation, PartitionId, Position};
use storage::log::sqlite::SqliteLogTrimmer;
use storage::log::{LogReader, ReadError};
use storage::store::{CasOutcome, Generations};
use uuid::Uuid;

/// Starts a settled processor with an empty archive.
async fn settled() -> Fixture {
    let mut fixture = Fixture::start().await;
    fixture.archive = Some(fixture.dir.path().join("archive"));
    fixture.append(3_000).await;
    fixture.wait_until_settled().await;
    fixture
}

fn dir(fixture: &Fixture) -> &Path {
    fixture.archive.as_deref().unwrap()
}

async fn archived(fixture: &Fixture) -> Vec<Archived> {
    let deps = fixture.archive_deps(dir(fixture));
    archive(&deps, &Progress::default()).await.unwrap()
}

async fn faults(fixture: &Fixture) -> Vec<String> {
    let (log, progress) = (fixture.reader(), Arc::new(Progress::default()));
    check_archive(&log, TOPIC, dir(fixture), &progress).await.unwrap().faults
}

/// Deletes a partition's records below `low`.
fn truncate(fixture: &Fixture, partition: u32, low: u64) {
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let delete = r#"DELETE FROM records WHERE partition = ?1 AND "offset" < ?2"#;
    assert!(log.execute(delete, (partition, low as i64)).unwrap() > 0);
}

/// Returns the path of a partition's first segment.
fn first_segment(fixture: &Fixture, partition: u32) -> PathBuf {
    let files = fs::read_dir(dir(fixture)).unwrap().map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.filter(|path| name(path).starts_with(&format!("{partition:05}-"))).min().unwrap()
}

/// Reads where a rebuild would have to come, which needs the log's beginning.
async fn rebuild_targets(fixture: &Fixture) -> Result<Vec<Position>, RebuildError> {
    target_positions(fixture.archived_reader().await.as_ref()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_records_are_archived_and_the_next_run_continues() {
    let fixture = settled().await;
    let first = archived(&fixture).await;
    for (partition, archived) in (0..).zip(&first) {
        let end = fixture.stored(partition).await.checkpoint.position;
        let from = Position::START;
        assert_eq!(*archived, Archived { partition: PartitionId(partition), from, end });
    }
    fixture.append(500).await;
    fixture.wait_until_settled().await;
    for (before, now) in first.iter().zip(archived(&fixture).await) {
        assert!(now.from == before.end && now.end > before.end, "{now:?}");
    }
    assert_eq!(faults(&fixture).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_is_rebuilt_and_audited_from_its_archive() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.append(200).await;
    fixture.wait_until_settled().await;
    fixture.stop_processor().await;
    for Archived { partition, end, .. } in ends {
        truncate(&fixture, partition.0, end.0 - 10);
    }
    fixture.start_processor().await;
    fixture.wait_until_settled().await;
    let RebuildOutcome { differences, records, .. } =
        rebuild(fixture.store.as_ref(), false).await.unwrap();
    assert_eq!((differences, records), (Vec::<String>::new(), 3_200));
    fixture.append(100).await;
    fixture.wait_until_settled().await;
    assert_eq!(report_lines(&fixture.audit().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_named_and_prevents_a_rebuild() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    let low = ends[1].end.0 - 1;
    truncate(&fixture, 1, low);
    fs::remove_file(first_segment(&fixture, 1)).unwrap();
    let gap =
        format!("partition 1: the archive has no records 0..{low}, and the log begins at {low}");
    assert_eq!(faults(&fixture).await, [gap]);
    let refused = rebuild_targets(&fixture).await.unwrap_err();
    assert!(
        matches!(refused, RebuildError::LogTruncated(PartitionId(1), Position(at)) if at == low),
        "{refused}"
    );
    fixture.archive = None;
    let refused = rebuild_targets(&fixture).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("partition 1 of the log begins at {low}: ")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_segment_is_reported_as_not_compared_and_not_as_a_difference() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.stop_processor().await;
    truncate(&fixture, 1, ends[1].end.0 - 10);
    fs::write(first_segment(&fixture, 1), b"nothing").unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    let reason = "partition 1: the archive cannot be read: ";
    assert!(report.unchecked[0].starts_with(reason), "{:#?}", report_lines(&report));
    assert!(report.unchecked[0].ends_with("it is too short"), "{:#?}", report_lines(&report));
    // Differences in other partitions are still reported.
    fixture.overwrite(0, |stored| move_one_person(&mut stored.totals[0].1)).await;
    let report = fixture.audit().await;
    let partition = |partition| Some(PartitionId(partition));
    assert!(!report.differences.is_empty());
    let differences = report.differences.iter();
    assert!(
        differences.clone().all(|it| it.scope.partition == partition(0)),
        "{:#?}",
        report_lines(&report)
    );
    assert!(report.unchecked[0].starts_with(reason), "{:#?}", report_lines(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_an_archive_whose_last_record_is_not_the_logs() {
    let mut fixture = settled().await;
    let ends = archived(&fixture).await;
    fixture.stop_processor().await;
    let last = ends[1].end.0 - 1;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let change = r#"UPDATE records SET value = x'00' WHERE partition = 1 AND "offset" = ?1"#;
    assert_eq!(log.execute(change, [last as i64]), Ok(1));
    let [fault] = &faults(&fixture).await[..] else { panic!("one fault") };
    assert!(fault.ends_with(&format!("another record is at offset {last}")), "{fault}");
}

async fn trimmed(fixture: &Fixture) -> Result<Vec<Trimmed>, ArchiveError> {
    let trimmer = SqliteLogTrimmer::new(&fixture.dir.path().join("log.db"));
    trim(&fixture.archive_deps(dir(fixture)), &trimmer, &Arc::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_log_is_folded_on_taken_over_audited_and_rebuilt() {
    let mut fixture = settled().await;
    archived(&fixture).await;
    for Trimmed { partition, from, low } in trimmed(&fixture).await.unwrap() {
        let stored = fixture.stored(partition.0).await.checkpoint;
        assert!(from == Position::START && low < stored.rows_position, "{partition}: {low}");
    }
    fixture.append(500).await;
    fixture.wait_until_settled().await;
    assert_eq!(report_lines(&fixture.audit().await), Vec::<String>::new());
    // A takeover reads only what is left.
    fixture.stop_processor().await;
    fixture.start_processor().await;
    fixture.append(500).await;
    fixture.wait_until_settled().await;
    let RebuildOutcome { differences, records, .. } =
        rebuild(fixture.store.as_ref(), false).await.unwrap();
    assert_eq!((differences, records), (Vec::<String>::new(), 4_000));
    // Also what the previous generation needs for a rollback is kept.
    archived(&fixture).await;
    for Trimmed { partition, low, .. } in trimmed(&fixture).await.unwrap() {
        let previous = fixture.stored(partition.0).await.checkpoint;
        assert!(low < previous.rows_position, "{partition}: {low}");
    }
    assert_eq!(report_lines(&fixture.audit().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_totals_of_a_trimmed_log_are_not_compared_or_rebuilt_without_its_archive() {
    let mut fixture = settled().await;
    archived(&fixture).await;
    trimmed(&fixture).await.unwrap();
    fixture.archive = None;
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    assert!(
        report.unchecked[0].ends_with("set `archive.dir` to the directory of its archive"),
        "{:#?}",
        report_lines(&report)
    );
    let refused = rebuild_targets(&fixture).await.unwrap_err().to_string();
    assert!(refused.ends_with("set `archive.dir` to the directory of its archive"), "{refused}");
    let (taxes, id) = (fixture::budget(fixture::BUDGETS[0]), AnnulmentId(Uuid::nil()));
    let held = people_annulled_by(&fixture.reader(), &taxes, id, &Progress::default()).await;
    assert_eq!(held, Err(ReadError::Missing(Position::START)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_not_trimmed_while_a_generation_is_built() {
    let mut fixture = settled().await;
    archived(&fixture).await;
    fixture.stop_processor().await;
    let registry = fixture.store.registry().await.unwrap();
    let building = generations::registry::begin(&registry.unwrap(), false, 1).unwrap();
    assert_eq!(fixture.store.change_registry(&building).await, Ok(CasOutcome::Applied));
    let refused = trimmed(&fixture).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Building(Generation(2))), "{refused}");
    let bounds = fixture.reader().bounds(PartitionId(0)).await.unwrap();
    assert_eq!(bounds.low, Position::START);
}
