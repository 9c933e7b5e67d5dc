//! The export: everyone's allocation as of exactly the positions that it names, also while people submit; the same people
//! are the same bytes; what cannot be exact is no export.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/breaking.rs"]
mod breaking;
#[path = "../support/logs.rs"]
mod logs;
mod moving;
mod naive;
#[path = "../support/passing.rs"]
mod passing;
#[path = "../support/running.rs"]
mod running;
#[path = "../support/whole.rs"]
mod whole;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use breaking::Breaking;
use fastrand::Rng;
use moving::{FixedLog, Moving};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use processor::export::{ExportError, ExportParts, ExportProgress, export};
use rusqlite::Connection;
use schemas::export::{Facts, Manifest};
use schemas::job::ExportFormat;
use schemas::{Budget, Category, CategoryId, PartitionId, Position, buckets};
use serde_json::Value;
use sha2::{Digest, Sha256};
use storage::log::LogReader;
use storage::store::Store;
use tempfile::TempDir;
use whole::{BUDGETS, CATEGORIES, Fixture, PARTITIONS, definition, id};

fn parts(fixture: &Fixture) -> ExportParts {
    ExportParts {
        log: Arc::new(fixture.reader()),
        topic: "submissions".into(),
        store: Arc::clone(&fixture.store) as _,
        budget: definition(BUDGETS[0]),
    }
}

/// An export into a folder of its own.
struct Exported {
    manifest: Manifest,
    bytes: Vec<u8>,
}

async fn exported(parts: &ExportParts, format: ExportFormat) -> Result<Exported, ExportError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people");
    let done = export(parts, format, &path, &ExportProgress::default()).await;
    let there = || fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let Ok(manifest) = done else {
        assert_eq!(there().collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
        return Err(done.unwrap_err());
    };
    let mut there: Vec<_> = there().collect();
    there.sort();
    assert_eq!(there, ["people", "people.json"]);
    let beside = fs::read(dir.path().join("people.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Manifest>(&beside).unwrap(), manifest);
    let bytes = fs::read(&path).unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((manifest.sha256.clone(), manifest.bytes), (digest, bytes.len() as u64));
    Ok(Exported { manifest, bytes })
}

/// The log's people up to these positions, naively.
async fn by_the_log(log: &dyn LogReader, positions: &[Position], budget: &str) -> Vec<Vec<u16>> {
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
    let sum = |place: usize| people.iter().map(|shares| u64::from(shares[place])).sum();
    (0..CATEGORIES.len()).map(sum).collect()
}

fn totals(facts: &Facts) -> Vec<u64> {
    facts.categories.iter().map(|category| category.basis_points).collect()
}

#[test]
fn whatever_is_committed_and_written_while_people_are_read_the_export_is_of_one_position() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut moved, mut behind) = (0, 0);
    for seed in 0..120 {
        runtime.block_on(async {
            let mut random = Rng::with_seed(seed);
            let log = Arc::new(FixedLog::of(1_500, &mut random));
            let steps = random.u32(0..60);
            let store = Arc::new(Moving::after(Arc::clone(&log), random, steps).await);
            let before = store.checkpoint().await;
            let parts = ExportParts {
                log: Arc::clone(&log) as _,
                topic: "submissions".into(),
                store: Arc::clone(&store) as _,
                budget: definition(moving::BUDGETS[1]),
            };
            let Exported { manifest, bytes } = exported(&parts, ExportFormat::Csv).await.unwrap();
            let after = store.checkpoint().await;
            assert_eq!(manifest.facts.positions, [after.position], "seed {seed}");
            let people = by_the_log(&*log, &manifest.facts.positions, moving::BUDGETS[1]).await;
            let expected = naive::csv(&CATEGORIES, &people);
            assert!(String::from_utf8(bytes).unwrap() == expected, "seed {seed}");
            moved += u32::from(after.position > before.position);
            behind += u32::from(after.state_position < after.position);
        });
    }
    assert!(moved > 100 && behind > 50, "{moved} moved, {behind} had rows to come");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_load_is_what_the_log_says_up_to_the_positions_that_it_names() {
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
        fixture.commits_more_than(records).await;
        let parts = parts(&fixture);
        let Exported { manifest, bytes } = exported(&parts, ExportFormat::Csv).await.unwrap();
        let facts = &manifest.facts;
        let people = by_the_log(&*parts.log, &facts.positions, BUDGETS[0]).await;
        assert!(String::from_utf8(bytes).unwrap() == naive::csv(&CATEGORIES, &people));
        assert_eq!((facts.people, totals(facts)), (people.len() as u64, sums(&people)));
        let now = facts.positions.iter().map(|position| position.0).sum();
        assert!(now > records, "no load");
        records = now;
    }
    assert!(!load.is_finished(), "the load has failed");
    load.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_people_are_the_same_bytes_in_every_format() {
    let fixture = Fixture::settled().await;
    for format in [ExportFormat::Csv, ExportFormat::Ndjson, ExportFormat::Pb, ExportFormat::Parquet]
    {
        let one = exported(&parts(&fixture), format).await.unwrap();
        let two = exported(&parts(&fixture), format).await.unwrap();
        assert!(one.bytes == two.bytes, "{format:?}");
        assert_eq!(one.manifest.facts, two.manifest.facts);
        assert!(one.manifest.facts.people > 20, "{:?}", one.manifest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_says_the_same_of_everyone() {
    let fixture = Fixture::settled().await;
    let parts = parts(&fixture);
    let csv = exported(&parts, ExportFormat::Csv).await.unwrap();
    let people = by_the_log(&*parts.log, &csv.manifest.facts.positions, BUDGETS[0]).await;
    assert!(String::from_utf8(csv.bytes).unwrap() == naive::csv(&CATEGORIES, &people));

    let ndjson = exported(&parts, ExportFormat::Ndjson).await.unwrap();
    let ndjson = String::from_utf8(ndjson.bytes).unwrap();
    let of_line = |line: &str| -> Vec<u16> {
        let line: Value = serde_json::from_str(line).unwrap();
        let share = |id: &str| line["allocation"][id].as_f64().unwrap_or_default();
        assert_eq!(line.as_object().unwrap().len(), 1, "{line}");
        CATEGORIES.iter().map(|id| (share(id) * 100.0).round() as u16).collect()
    };
    assert!(ndjson.lines().map(of_line).eq(people.iter().cloned()));

    let parquet = exported(&parts, ExportFormat::Parquet).await.unwrap();
    let reader = SerializedFileReader::new(bytes::Bytes::from(parquet.bytes)).unwrap();
    let kept = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let facts = kept.iter().find(|pair| pair.key == "allocation").unwrap().value.clone().unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&facts).unwrap(), parquet.manifest.facts);
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        (0..CATEGORIES.len()).map(|place| row.get_ushort(place).unwrap()).collect::<Vec<_>>()
    });
    assert!(rows.eq(people.iter().cloned()));
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    assert!(columns.iter().map(|column| column.name()).eq(CATEGORIES));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_an_export_leads_to_a_person_or_their_record() {
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
        let Exported { bytes, manifest } = exported(&parts(&fixture), format).await.unwrap();
        assert!(!keys.iter().any(|key| bytes.windows(key.len()).any(|found| found == key)));
        if format == ExportFormat::Pb {
            let text = String::from_utf8(bytes).unwrap();
            let (_, votes) = text.split_once("voter_id;vote;points\n").unwrap();
            let voters = votes.lines().map(|line| line.split(';').next().unwrap().to_owned());
            assert!(voters.eq((1..=manifest.facts.people).map(|number| number.to_string())));
        }
    }
}

/// Why there is no export.
async fn refusal(fixture: &Fixture) -> String {
    exported(&parts(fixture), ExportFormat::Csv).await.err().expect("it was exported").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_do_not_add_up_to_what_is_committed_are_no_export() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    fixture
        .overwrite(1, |stored| {
            let (budget, totals) = &mut stored.totals[0];
            assert_eq!(budget.as_str(), BUDGETS[0]);
            totals.categories[0].basis_points -= 1;
            totals.categories[1].basis_points += 1;
        })
        .await;
    let why = refusal(&fixture).await;
    assert!(why.starts_with("partition 1: people's rows make "), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_ahead_of_the_totals_is_no_export() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    let mut rows = Vec::new();
    for bucket in buckets() {
        let mut take = |row| rows.push(row);
        fixture.store.read_people(id(0), bucket, &mut take).await.unwrap();
    }
    let mut row = rows.into_iter().find(|row| row.budget.as_str() == BUDGETS[0]).unwrap();
    row.offset.0 += 1_000_000;
    fixture.store.write_people(id(0), &[row]).await.unwrap();
    let why = refusal(&fixture).await;
    assert!(why.starts_with("partition 0: a person's row is of offset 10"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_after_what_the_rows_lack_is_no_export() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    fixture.overwrite(0, |stored| stored.checkpoint.state_position.0 = 100).await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 0 AND "offset" < 200"#, []).unwrap();
    let why = refusal(&fixture).await;
    assert!(why.starts_with("partition 0: the log holds 200.."), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_and_another_number_of_categories_are_refused() {
    let fixture = Fixture::settled().await;
    let other = ExportParts { topic: "others".into(), ..parts(&fixture) };
    let why = exported(&other, ExportFormat::Csv).await.err().unwrap().to_string();
    assert!(why.contains("is of topic `submissions`"), "{why}");
    let mut more = Budget::clone(&definition(BUDGETS[0]));
    more.categories
        .push(Category { id: CategoryId::parse("third").unwrap(), ..more.categories[0].clone() });
    let more = ExportParts { budget: Arc::new(more), ..parts(&fixture) };
    let why = exported(&more, ExportFormat::Csv).await.err().unwrap().to_string();
    assert_eq!(why, "the budget has 3 categories, and its totals are of 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_nobody_has_submitted_to_is_an_export_of_nobody() {
    let fixture = Fixture::settled().await;
    let parts = ExportParts { budget: definition("nobody"), ..parts(&fixture) };
    let Exported { manifest, bytes } = exported(&parts, ExportFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), "first,second\n");
    assert_eq!((manifest.facts.people, totals(&manifest.facts)), (0, vec![0, 0]));
    for format in [ExportFormat::Ndjson, ExportFormat::Pb, ExportFormat::Parquet] {
        assert_eq!(exported(&parts, format).await.unwrap().manifest.facts.people, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_dropped_leaves_nothing_and_one_before_it_alone() {
    let fixture = Fixture::settled().await;
    let parts = parts(&fixture);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people.csv");
    let there = |path: &Path| fs::read_dir(path).unwrap().count();
    export(&parts, ExportFormat::Csv, &path, &ExportProgress::default()).await.unwrap();
    let first = fs::read(&path).unwrap();
    fixture.append(500).await;
    fixture.settle().await;
    let is_dropped_after = async |steps: u64| {
        let progress = ExportProgress::default();
        let far = async {
            while progress.steps().0 < steps {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = far => true,
            done = export(&parts, ExportFormat::Csv, &path, &progress) => {
                done.unwrap();
                false
            }
        }
    };
    for steps in [1, 70, 130, 200] {
        // One that was done sooner than it was looked at is no case of this: once more.
        while !is_dropped_after(steps).await {
            fs::write(&path, &first).unwrap();
        }
        // What was in the middle of a step lets go of its file at the step's end.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while there(dir.path()) > 2 {
            assert!(std::time::Instant::now() < deadline, "a part is left after {steps} steps");
            tokio::task::yield_now().await;
        }
        assert!(fs::read(&path).unwrap() == first);
    }
    export(&parts, ExportFormat::Csv, &path, &ExportProgress::default()).await.unwrap();
    assert!(fs::read(&path).unwrap() != first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_manifest_cannot_be_written_leaves_the_one_before_it_alone() {
    let fixture = Fixture::settled().await;
    let parts = parts(&fixture);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("people.csv");
    fs::write(&path, b"the one before it").unwrap();
    fs::create_dir(dir.path().join("people.csv.json")).unwrap();
    let refused = export(&parts, ExportFormat::Csv, &path, &ExportProgress::default()).await;
    assert!(
        matches!(&refused, Err(ExportError::Output { path, .. }) if path.ends_with("people.csv.json")),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"the one before it");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_log_that_is_broken_off_is_read_on_before_anything_is_exported() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Paused: who is asked again is not waited for.
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let mut broke = 0;
    for seed in 0..20 {
        runtime.block_on(async {
            let mut random = Rng::with_seed(seed);
            let log = Arc::new(FixedLog::of(1_500, &mut random));
            let steps = random.u32(0..60);
            let store = Moving::after(Arc::clone(&log), random, steps).await;
            let breaking = Arc::new(Breaking::new(Arc::clone(&log) as _));
            let parts = ExportParts {
                log: Arc::clone(&breaking) as _,
                topic: "submissions".into(),
                store: Arc::new(store),
                budget: definition(moving::BUDGETS[1]),
            };
            let Exported { manifest, bytes } = exported(&parts, ExportFormat::Csv).await.unwrap();
            let people = by_the_log(&*log, &manifest.facts.positions, moving::BUDGETS[1]).await;
            let expected = naive::csv(&CATEGORIES, &people);
            assert!(String::from_utf8(bytes).unwrap() == expected, "seed {seed}");
            broke += u32::from(breaking.broke());
        });
    }
    assert_eq!(broke, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_created_anew_is_no_export() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let last = fixture.stored(1).await.checkpoint.position.0 - 1;
    let change = r#"UPDATE records SET value = x'00' WHERE partition = 1 AND "offset" = ?1"#;
    assert_eq!(log.execute(change, [last as i64]), Ok(1));
    let why = refusal(&fixture).await;
    assert!(why.starts_with(&format!("partition 1: the record at offset {last} is not")), "{why}");
}
