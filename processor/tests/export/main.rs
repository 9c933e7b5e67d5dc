//! Exports are exact: everyone's allocation as of exactly the named positions, also under load. Equal allocations give
//! equal bytes, and data that does not add up is not exported.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/fixture.rs"]
mod fixture;
#[path = "../support/interrupted_reader.rs"]
mod interrupted_reader;
mod moving;
mod naive;
#[path = "../support/running_processor.rs"]
mod running_processor;
#[path = "../support/single_log.rs"]
mod single_log;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use interrupted_reader::InterruptedReader;
use moving::{FixedLog, moving_store};
use operations::export::{ExportDeps, ExportError, ExportProgress, export};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rusqlite::Connection;
use schemas::export::{ExportSummary, Manifest};
use schemas::job::ExportFormat;
use schemas::{Budget, Category, CategoryId, PartitionId, Position, buckets};
use serde_json::Value;
use sha2::{Digest, Sha256};
use storage::log::LogReader;
use storage::store::People;

use fixture::{BUDGETS, CATEGORIES, Fixture, PARTITIONS, definition, id};
use tempfile::TempDir;

fn export_deps(fixture: &Fixture) -> ExportDeps {
    ExportDeps {
        log: Arc::new(fixture.reader()),
        topic: "submissions".into(),
        store: Arc::clone(&fixture.store) as _,
        budget: definition(BUDGETS[0]),
    }
}

/// A finished export.
struct Exported {
    manifest: Manifest,
    bytes: Vec<u8>,
}

async fn exported(deps: &ExportDeps, format: ExportFormat) -> Result<Exported, ExportError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people");
    let done = export(deps, format, &path, &ExportProgress::default()).await;
    let files = || fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let Ok(manifest) = done else {
        assert_eq!(files().collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
        return Err(done.unwrap_err());
    };
    let mut names: Vec<_> = files().collect();
    names.sort();
    assert_eq!(names, ["people", "people.json"]);
    let stored = fs::read(dir.path().join("people.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Manifest>(&stored).unwrap(), manifest);
    let bytes = fs::read(&path).unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((manifest.sha256.clone(), manifest.bytes), (digest, bytes.len() as u64));
    Ok(Exported { manifest, bytes })
}

/// Folds the log up to these positions naively, and returns everyone's shares.
async fn naive_people(log: &dyn LogReader, positions: &[Position], budget: &str) -> Vec<Vec<u16>> {
    let mut people = Vec::new();
    for (partition, position) in (0..).zip(positions) {
        let mut records = Vec::new();
        let mut batches = log.read(PartitionId(partition), Position::START..*position);
        while let Some(batch) = batches.recv().await {
            let batch = batch.unwrap();
            records.extend(batch.iter().map(|record| (record.key.to_vec(), record.value.to_vec())));
        }
        let records = records.iter().map(|(key, value)| (&key[..], &value[..]));
        people.extend(naive::people(records, budget));
    }
    people
}

fn sums(people: &[Vec<u16>]) -> Vec<u64> {
    let sum = |index: usize| people.iter().map(|shares| u64::from(shares[index])).sum();
    (0..CATEGORIES.len()).map(sum).collect()
}

fn totals(summary: &ExportSummary) -> Vec<u64> {
    summary.categories.iter().map(|category| category.basis_points).collect()
}

#[test]
fn an_export_is_of_one_position_under_any_interleaving_of_commits_and_row_writes() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut moved, mut behind) = (0, 0);
    for seed in 0..120 {
        runtime.block_on(async {
            let mut random = Rng::with_seed(seed);
            let log = Arc::new(FixedLog::generate(1_500, &mut random));
            let steps = random.u32(0..60);
            let store = Arc::new(moving_store(Arc::clone(&log), random, steps).await);
            let before = store.checkpoint().await;
            let deps = ExportDeps {
                log: Arc::clone(&log) as _,
                topic: "submissions".into(),
                store: Arc::clone(&store) as _,
                budget: definition(moving::BUDGETS[1]),
            };
            let Exported { manifest, bytes } = exported(&deps, ExportFormat::Csv).await.unwrap();
            let after = store.checkpoint().await;
            assert_eq!(manifest.summary.positions, [after.position], "seed {seed}");
            let people = naive_people(&*log, &manifest.summary.positions, moving::BUDGETS[1]).await;
            let expected = naive::csv(&CATEGORIES, &people);
            assert!(String::from_utf8(bytes).unwrap() == expected, "seed {seed}");
            moved += u32::from(after.position > before.position);
            behind += u32::from(after.rows_position < after.position);
        });
    }
    assert!(moved > 100 && behind > 50, "{moved} advanced, {behind} lacked rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_load_equals_the_naive_fold_up_to_its_positions() {
    let fixture = Arc::new(Fixture::settled().await);
    let load = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            loop {
                fixture.append(40).await;
            }
        })
    };
    let mut records = 0;
    for _ in 0..8 {
        fixture.wait_until_committed_beyond(records).await;
        let deps = export_deps(&fixture);
        let Exported { manifest, bytes } = exported(&deps, ExportFormat::Csv).await.unwrap();
        let summary = &manifest.summary;
        let people = naive_people(&*deps.log, &summary.positions, BUDGETS[0]).await;
        assert!(String::from_utf8(bytes).unwrap() == naive::csv(&CATEGORIES, &people));
        assert_eq!((summary.people, totals(summary)), (people.len() as u64, sums(&people)));
        let now = summary.positions.iter().map(|position| position.0).sum();
        assert!(now > records, "no load");
        records = now;
    }
    assert!(!load.is_finished(), "the load has failed");
    load.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_allocations_give_equal_bytes_in_every_format() {
    let fixture = Fixture::settled().await;
    for format in [ExportFormat::Csv, ExportFormat::Ndjson, ExportFormat::Pb, ExportFormat::Parquet]
    {
        let one = exported(&export_deps(&fixture), format).await.unwrap();
        let two = exported(&export_deps(&fixture), format).await.unwrap();
        assert!(one.bytes == two.bytes, "{format:?}");
        assert_eq!(one.manifest.summary, two.manifest.summary);
        assert!(one.manifest.summary.people > 20, "{:?}", one.manifest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_has_the_same_allocations() {
    let fixture = Fixture::settled().await;
    let deps = export_deps(&fixture);
    let csv = exported(&deps, ExportFormat::Csv).await.unwrap();
    let people = naive_people(&*deps.log, &csv.manifest.summary.positions, BUDGETS[0]).await;
    assert!(String::from_utf8(csv.bytes).unwrap() == naive::csv(&CATEGORIES, &people));

    let ndjson = exported(&deps, ExportFormat::Ndjson).await.unwrap();
    let ndjson = String::from_utf8(ndjson.bytes).unwrap();
    let of_line = |line: &str| -> Vec<u16> {
        let line: Value = serde_json::from_str(line).unwrap();
        let share = |id: &str| line["allocation"][id].as_f64().unwrap_or_default();
        assert_eq!(line.as_object().unwrap().len(), 1, "{line}");
        CATEGORIES.iter().map(|id| (share(id) * 100.0).round() as u16).collect()
    };
    assert!(ndjson.lines().map(of_line).eq(people.iter().cloned()));

    let parquet = exported(&deps, ExportFormat::Parquet).await.unwrap();
    let reader = SerializedFileReader::new(bytes::Bytes::from(parquet.bytes)).unwrap();
    let kept = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let summary = kept.iter().find(|pair| pair.key == "allocation").unwrap().value.clone().unwrap();
    assert_eq!(serde_json::from_str::<ExportSummary>(&summary).unwrap(), parquet.manifest.summary);
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        (0..CATEGORIES.len()).map(|index| row.get_ushort(index).unwrap()).collect::<Vec<_>>()
    });
    assert!(rows.eq(people.iter().cloned()));
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    assert!(columns.iter().map(|column| column.name()).eq(CATEGORIES));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_contains_no_key_and_no_record_address() {
    let fixture = Fixture::settled().await;
    let mut keys = Vec::new();
    for partition in 0..PARTITIONS {
        for bucket in buckets() {
            let mut take = |row: schemas::PersonRow| keys.push(*row.person.as_bytes());
            fixture.store.read_people(id(partition), bucket, &mut take).await.unwrap();
        }
    }
    for format in [ExportFormat::Csv, ExportFormat::Ndjson, ExportFormat::Pb, ExportFormat::Parquet]
    {
        let Exported { bytes, manifest } = exported(&export_deps(&fixture), format).await.unwrap();
        assert!(!keys.iter().any(|key| bytes.windows(key.len()).any(|found| found == key)));
        if format == ExportFormat::Pb {
            let text = String::from_utf8(bytes).unwrap();
            let (_, votes) = text.split_once("voter_id;vote;points\n").unwrap();
            let voters = votes.lines().map(|line| line.split(';').next().unwrap().to_owned());
            assert!(voters.eq((1..=manifest.summary.people).map(|number| number.to_string())));
        }
    }
}

/// Returns the error of an export that must fail.
async fn export_error(fixture: &Fixture) -> String {
    exported(&export_deps(fixture), ExportFormat::Csv)
        .await
        .err()
        .expect("the export succeeded")
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_add_up_to_the_committed_totals_are_not_exported() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    fixture
        .overwrite(1, |stored| {
            let (budget, totals) = &mut stored.totals[0];
            assert_eq!(budget.as_str(), BUDGETS[0]);
            totals.categories[0].basis_points -= 1;
            totals.categories[1].basis_points += 1;
        })
        .await;
    let reason = export_error(&fixture).await;
    assert!(reason.starts_with("partition 1: the person rows add up to "), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_row_ahead_of_the_totals_is_not_exported() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    let mut rows = Vec::new();
    for bucket in buckets() {
        let mut take = |row| rows.push(row);
        fixture.store.read_people(id(0), bucket, &mut take).await.unwrap();
    }
    let mut row = rows.into_iter().find(|row| row.budget.as_str() == BUDGETS[0]).unwrap();
    row.offset.0 += 1_000_000;
    fixture.store.write_people(id(0), &[row]).await.unwrap();
    let reason = export_error(&fixture).await;
    assert!(reason.starts_with("partition 0: a person row has offset 10"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_the_records_that_the_rows_lack_is_not_exported() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    fixture.overwrite(0, |stored| stored.checkpoint.rows_position.0 = 100).await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 0 AND "offset" < 200"#, []).unwrap();
    let reason = export_error(&fixture).await;
    assert!(reason.starts_with("partition 0: the log holds 200.."), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_and_another_number_of_categories_are_refused() {
    let fixture = Fixture::settled().await;
    let other = ExportDeps { topic: "others".into(), ..export_deps(&fixture) };
    let reason = exported(&other, ExportFormat::Csv).await.err().unwrap().to_string();
    assert!(reason.contains("derives from topic `submissions`"), "{reason}");
    let mut more = Budget::clone(&definition(BUDGETS[0]));
    more.categories
        .push(Category { id: CategoryId::parse("third").unwrap(), ..more.categories[0].clone() });
    let more = ExportDeps { budget: Arc::new(more), ..export_deps(&fixture) };
    let reason = exported(&more, ExportFormat::Csv).await.err().unwrap().to_string();
    assert_eq!(reason, "the budget has 3 categories, but its totals have 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_without_submissions_has_an_empty_export() {
    let fixture = Fixture::settled().await;
    let deps = ExportDeps { budget: definition("unused"), ..export_deps(&fixture) };
    let Exported { manifest, bytes } = exported(&deps, ExportFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), "first,second\n");
    assert_eq!((manifest.summary.people, totals(&manifest.summary)), (0, vec![0, 0]));
    for format in [ExportFormat::Ndjson, ExportFormat::Pb, ExportFormat::Parquet] {
        assert_eq!(exported(&deps, format).await.unwrap().manifest.summary.people, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_export_leaves_no_file_and_keeps_the_previous_export() {
    let fixture = Fixture::settled().await;
    let deps = export_deps(&fixture);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people.csv");
    let count_files = |path: &Path| fs::read_dir(path).unwrap().count();
    export(&deps, ExportFormat::Csv, &path, &ExportProgress::default()).await.unwrap();
    let first = fs::read(&path).unwrap();
    fixture.append(500).await;
    fixture.wait_until_settled().await;
    let is_dropped_after = async |steps: u64| {
        let progress = ExportProgress::default();
        let reached = async {
            while progress.steps().0 < steps {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = reached => true,
            done = export(&deps, ExportFormat::Csv, &path, &progress) => {
                done.unwrap();
                false
            }
        }
    };
    for steps in [1, 70, 130, 200] {
        // Repeated if the export completed before it could be dropped.
        while !is_dropped_after(steps).await {
            fs::write(&path, &first).unwrap();
        }
        // A blocking step deletes its file only when it ends.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while count_files(dir.path()) > 2 {
            assert!(
                std::time::Instant::now() < deadline,
                "a partial file is left after {steps} steps"
            );
            tokio::task::yield_now().await;
        }
        assert!(fs::read(&path).unwrap() == first);
    }
    export(&deps, ExportFormat::Csv, &path, &ExportProgress::default()).await.unwrap();
    assert!(fs::read(&path).unwrap() != first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_manifest_cannot_be_written_keeps_the_previous_export() {
    let fixture = Fixture::settled().await;
    let deps = export_deps(&fixture);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people.csv");
    fs::write(&path, b"the previous export").unwrap();
    fs::create_dir(dir.path().join("people.csv.json")).unwrap();
    let refused = export(&deps, ExportFormat::Csv, &path, &ExportProgress::default()).await;
    assert!(
        matches!(&refused, Err(ExportError::Output { path, .. }) if path.ends_with("people.csv.json")),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"the previous export");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn an_interrupted_read_of_the_log_is_resumed_before_the_export() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Paused, so that the backoff takes no time.
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let mut interruptions = 0;
    for seed in 0..20 {
        runtime.block_on(async {
            let mut random = Rng::with_seed(seed);
            let log = Arc::new(FixedLog::generate(1_500, &mut random));
            let steps = random.u32(0..60);
            let store = moving_store(Arc::clone(&log), random, steps).await;
            let interrupted = Arc::new(InterruptedReader::new(Arc::clone(&log) as _));
            let deps = ExportDeps {
                log: Arc::clone(&interrupted) as _,
                topic: "submissions".into(),
                store: Arc::new(store),
                budget: definition(moving::BUDGETS[1]),
            };
            let Exported { manifest, bytes } = exported(&deps, ExportFormat::Csv).await.unwrap();
            let people = naive_people(&*log, &manifest.summary.positions, moving::BUDGETS[1]).await;
            let expected = naive::csv(&CATEGORIES, &people);
            assert!(String::from_utf8(bytes).unwrap() == expected, "seed {seed}");
            interruptions += u32::from(interrupted.was_interrupted());
        });
    }
    assert_eq!(interruptions, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_log_is_not_exported() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let last = fixture.stored(1).await.checkpoint.position.0 - 1;
    let change = r#"UPDATE records SET value = x'00' WHERE partition = 1 AND "offset" = ?1"#;
    assert_eq!(log.execute(change, [last as i64]), Ok(1));
    let reason = export_error(&fixture).await;
    assert!(
        reason.starts_with(&format!("partition 1: the record at offset {last} is not")),
        "{reason}"
    );
}
