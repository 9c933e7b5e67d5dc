//! `audit`: derives everything from the log again and compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use storage::config::StorageConfig;
use storage::log::LogReaderOpener;
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use super::progress_display::show_while;
use super::{EXIT_DIFFERENT, EXIT_INTERRUPTED, MAX_PRINTED_LINES, push_first_lines};
use generations::registry::active_log;
use operations::BackendError;
use operations::audit::{AuditDeps, AuditReport, audit};
use operations::progress::Progress;

/// Exit code: not everything could be compared.
const EXIT_UNCHECKED: u8 = 2;

/// Recompute all totals from the log and compare store, cache and api responses with them
///
/// Runs while the processors run and changes nothing. Exit code: 0 everything agrees, 1 differences found, 2 something
/// could not be compared.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Configuration of the log, the store and the cache.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Also compare the responses of this api; may be repeated
    #[arg(long = "api", value_name = "URL")]
    pub apis: Vec<String>,
    /// Write the result as metrics to a file for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

/// Audits the deployment that `storage` configures until `stop` is cancelled, and prints the result.
pub async fn audit_command(
    args: &AuditArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        let line = format!("{done} of {total} records compared");
        ProgressUpdate { done, total, message: String::new(), line }
    };
    // Boxed: the compiler cannot compute the layout of a future nested this deep.
    let auditing = Box::pin(open_and_audit(args, storage, &progress));
    match show_while("auditing ", current, stop.run_until_cancelled(auditing)).await {
        None => {
            console::err("audit: interrupted\n");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Some(audited) => {
            // An audit that failed must not look clean in the metrics.
            let report = audited.unwrap_or_else(|error| AuditReport {
                unchecked: vec![error.to_string()],
                ..AuditReport::default()
            });
            console::out(&text(&report));
            if let Some(path) = &args.metrics_file
                && let Err(error) = replace(path, &metrics(&report, now_ms() / 1_000))
            {
                console::err(&format!("audit: {} cannot be written: {error}\n", path.display()));
                return ExitCode::from(EXIT_UNCHECKED);
            }
            ExitCode::from(verdict(&report))
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AuditCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Audit(#[from] BackendError),
}

async fn open_and_audit(
    args: &AuditArgs,
    storage: &StorageConfig,
    progress: &Progress,
) -> Result<AuditReport, AuditCommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = active_log(store.as_ref(), &storage.first_log()).await?;
    let deps = AuditDeps {
        log: storage.open(&log).await?,
        topic: log.topic,
        store,
        cache: storage.open_shared_cache().await,
        apis: args.apis.clone(),
    };
    Ok(audit(&deps, progress).await?)
}

fn verdict(report: &AuditReport) -> u8 {
    match (report.differences.is_empty(), report.is_clean()) {
        (false, _) => EXIT_DIFFERENT,
        (true, false) => EXIT_UNCHECKED,
        (true, true) => 0,
    }
}

/// Formats the result; the last line is the summary that scripts read.
fn text(report: &AuditReport) -> String {
    let mut text = String::new();
    push_first_lines(&mut text, report.differences.iter(), report.differences.len() as u64);
    for unchecked in report.unchecked.iter().take(MAX_PRINTED_LINES) {
        let _ = writeln!(text, "not compared: {}", unchecked.escape_debug());
    }
    let subjects: Vec<String> = report.subjects.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        text,
        "AUDIT records={} partitions={} budgets={} history_points={} history_missing={} differences={} \
         unchecked={} compared={}",
        report.records,
        report.positions.len(),
        report.budgets.len(),
        report.history_points,
        report.history_missing,
        report.differences.len(),
        report.unchecked.len(),
        subjects.join("; "),
    );
    text
}

/// Formats the result in Prometheus's text format.
fn metrics(report: &AuditReport, now_seconds: u64) -> String {
    let mut counts = BTreeMap::new();
    for difference in &report.differences {
        let scope = &difference.scope;
        let or_all = |label: Option<String>| label.unwrap_or_else(|| "all".to_owned());
        let labels = (
            scope.subject.label(),
            or_all(scope.partition.map(|partition| partition.to_string())),
            or_all(scope.budget.as_ref().map(ToString::to_string)),
            or_all(scope.category.map(|category| category.to_string())),
        );
        *counts.entry(labels).or_insert(0_u64) += 1;
    }
    let mut text = String::from(
        "# HELP allocator_audit_differences Differences from the log that the last audit found.\n\
         # TYPE allocator_audit_differences gauge\n",
    );
    for ((subject, partition, budget, category), count) in counts {
        let _ = writeln!(
            text,
            "allocator_audit_differences{{place=\"{subject}\",partition=\"{partition}\",budget=\"{budget}\",\
             category=\"{category}\"}} {count}"
        );
    }
    for (name, help, value) in [
        (
            "clean",
            "1 if the last audit compared everything and found no difference.",
            u64::from(report.is_clean()),
        ),
        (
            "unchecked",
            "Items that the last audit could not compare.",
            report.unchecked.len() as u64,
        ),
        ("records", "Records folded by the last audit.", report.records),
        (
            "finished_timestamp_seconds",
            "End of the last audit, in seconds since 1970.",
            now_seconds,
        ),
    ] {
        let name = format!("allocator_audit_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    text
}

/// Replaces a file atomically, since a collector must not read half of it.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}
