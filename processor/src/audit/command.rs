//! The command: `processor audit`, `allocator audit`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::{self, Look};
use storage::config::StorageConfig;
use storage::log::LogReaders;
use storage::opening::OpenError;
use tokio_util::sync::CancellationToken;

use super::{AuditError, AuditParts, AuditProgress, Report, audit};
use crate::generations::current_log;

/// Lines that are printed of each kind; the metrics count all of them.
const SHOWN: usize = 100;
/// Differences were found.
const DIFFERENT: u8 = 1;
/// Not everything could be compared.
const UNCHECKED: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;

/// Derives everything from the log again and compares: the store's totals, people's rows, the cache, the apis' answers.
///
/// Runs beside the processors and changes nothing. Ends with 0 if everything agrees, 1 if something differs, 2 if
/// something could not be compared.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Where the log, the store and the cache are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// An api whose answers are compared too; may be given several times.
    #[arg(long = "api", value_name = "URL")]
    pub apis: Vec<String>,
    /// Writes the result as metrics into a file, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

/// Runs an audit of what `storage` configures, until `stop` interrupts it, and prints what it finds.
pub async fn audit_command(
    args: &AuditArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let (progress, done) = (AuditProgress::default(), CancellationToken::new());
    let shown = progress::show("auditing ", done.clone(), |_| {
        let (folded, records) = progress.records();
        let line = format!("{folded} of {records} records compared");
        Look { done: folded, of: records, message: String::new(), line }
    });
    let audited = async {
        let audited = stop.run_until_cancelled(open_and_audit(args, storage, &progress)).await;
        done.cancel();
        audited
    };
    let (audited, ()) = tokio::join!(audited, shown);
    match audited {
        None => {
            console::err("audit: interrupted\n");
            ExitCode::from(INTERRUPTED)
        }
        Some(audited) => {
            // What has no result is no clean one: whoever watches the metrics has to hear of it.
            let report = audited.unwrap_or_else(|error| Report {
                unchecked: vec![error.to_string()],
                ..Report::default()
            });
            console::out(&text(&report));
            if let Some(path) = &args.metrics_file
                && let Err(error) = replace(path, &metrics(&report, now_ms() / 1_000))
            {
                console::err(&format!("audit: {} cannot be written: {error}\n", path.display()));
                return ExitCode::from(UNCHECKED);
            }
            ExitCode::from(verdict(&report))
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

async fn open_and_audit(
    args: &AuditArgs,
    storage: &StorageConfig,
    progress: &AuditProgress,
) -> Result<Report, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = current_log(store.as_ref(), &storage.first_log()).await?;
    let parts = AuditParts {
        log: storage.open(&log).await?,
        topic: log.topic,
        store,
        cache: storage.open_shared_cache().await,
        apis: args.apis.clone(),
    };
    Ok(audit(&parts, progress).await?)
}

fn verdict(report: &Report) -> u8 {
    match (report.differences.is_empty(), report.is_clean()) {
        (false, _) => DIFFERENT,
        (true, false) => UNCHECKED,
        (true, true) => 0,
    }
}

/// What a person reads.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for difference in report.differences.iter().take(SHOWN) {
        let _ = writeln!(text, "{difference}");
    }
    if let Some(more @ 1..) = report.differences.len().checked_sub(SHOWN) {
        let _ = writeln!(text, "and {more} more");
    }
    for unchecked in report.unchecked.iter().take(SHOWN) {
        let _ = writeln!(text, "not compared: {}", unchecked.escape_debug());
    }
    let places: Vec<String> = report.places.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        text,
        "AUDIT records={} partitions={} budgets={} differences={} unchecked={} compared={}",
        report.records,
        report.positions.len(),
        report.budgets.len(),
        report.differences.len(),
        report.unchecked.len(),
        places.join("; "),
    );
    text
}

/// What Prometheus reads.
fn metrics(report: &Report, now_seconds: u64) -> String {
    let mut counts = BTreeMap::new();
    for difference in &report.differences {
        let scope = &difference.scope;
        let or_all = |label: Option<String>| label.unwrap_or_else(|| "all".to_owned());
        let labels = (
            scope.place.label(),
            or_all(scope.partition.map(|partition| partition.to_string())),
            or_all(scope.budget.as_ref().map(ToString::to_string)),
            or_all(scope.category.map(|category| category.to_string())),
        );
        *counts.entry(labels).or_insert(0_u64) += 1;
    }
    let mut text = String::from(
        "# HELP allocator_audit_differences What the last audit found not to be as the log says.\n\
         # TYPE allocator_audit_differences gauge\n",
    );
    for ((place, partition, budget, category), count) in counts {
        let _ = writeln!(
            text,
            "allocator_audit_differences{{place=\"{place}\",partition=\"{partition}\",budget=\"{budget}\",\
             category=\"{category}\"}} {count}"
        );
    }
    for (name, help, value) in [
        (
            "clean",
            "1 if the last audit compared everything and nothing differed.",
            u64::from(report.is_clean()),
        ),
        ("unchecked", "What the last audit could not compare.", report.unchecked.len() as u64),
        ("records", "Records that the last audit folded.", report.records),
        ("finished_timestamp_seconds", "When the last audit ended.", now_seconds),
    ] {
        let name = format!("allocator_audit_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    text
}

/// Replaces a file in one step: a collector must not read half of it.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}
