//! `signals`: shows what the signals of a budget's submissions say.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use fraud::summary::{DEFAULT_HOURS, MAX_HOURS, SummaryWindow, summarize};
use fraud::view::SignalsView;
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use schemas::BudgetId;
use storage::config::StorageConfig;
use storage::log::ReadError;
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use super::definition::{DefinitionMissing, definition};
use super::export::budget_id;
use super::progress_display::show_while;
use super::{EXIT_FAILED, EXIT_INTERRUPTED};

/// Show new people, the largest networks and identical ballots of a budget's recent submissions
///
/// Signals are kept for seven days. Networks and ballots are shown as digests: see docs/operations/fraud.md. Exit code:
/// 0 shown, 2 the signals could not be read.
#[derive(Debug, Args)]
pub struct SignalsArgs {
    /// Configuration of the log.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    budget: BudgetId,
    /// Hours before now, at most 120
    #[arg(long, value_name = "N", default_value_t = DEFAULT_HOURS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HOURS)))]
    hours: u32,
    /// Print JSON, as `GET /v1/admin/budgets/{budget}/signals`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum SignalsCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Definition(#[from] DefinitionMissing),
    #[error("the signals cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the hours must be from 1 to {MAX_HOURS}")]
    Hours,
    #[error("the result cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads the signals that `storage` configures until `stop` is cancelled, and prints their summary.
pub async fn signals_command(
    args: &SignalsArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let current = || {
        let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        let line = format!("{done} of {total} signals read");
        ProgressUpdate { done, total, message: String::new(), line }
    };
    let set_progress = |read, of| {
        done.store(read, Ordering::Relaxed);
        total.store(of, Ordering::Relaxed);
    };
    // Boxed: the compiler cannot compute the layout of a future nested this deep.
    let reading = Box::pin(read(args, storage, set_progress));
    match show_while("signals ", current, stop.run_until_cancelled(reading)).await {
        None => {
            console::err("signals: interrupted\n");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("signals: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
        Some(Ok(text)) => {
            console::out(&text);
            ExitCode::SUCCESS
        }
    }
}

async fn read(
    args: &SignalsArgs,
    storage: &StorageConfig,
    progress: impl Fn(u64, u64),
) -> Result<String, SignalsCommandError> {
    definition(&storage.open_control_topic()?, &args.budget).await?;
    let window = SummaryWindow::new(now_ms(), args.hours).ok_or(SignalsCommandError::Hours)?;
    let signals = storage.signal_reader();
    let summary = summarize(signals.as_ref(), &args.budget, window, progress).await?;
    let view = SignalsView::of(&args.budget, &summary);
    if args.json {
        return Ok(serde_json::to_string_pretty(&view)? + "\n");
    }
    Ok(text(&view))
}

/// Formats the tables; the last line is the summary that scripts read.
fn text(view: &SignalsView) -> String {
    let mut text = String::new();
    let _ =
        writeln!(text, "{:<24}  {:>10}  {:>10}", "new people, hour from", "people", "day before");
    for hour in &view.new_people {
        let (people, before) = (hour.people, hour.people_day_before);
        let _ = writeln!(text, "{:<24}  {people:>10}  {before:>10}", hour.from);
    }
    let _ = writeln!(
        text,
        "\n{:<16}  {:<10}  {:>8}  {:>7}  {:>11}  {:>8}  {:>7}  {:<24}  last",
        "network", "UTC day", "people", "share", "submissions", "ballots", "agents", "first",
    );
    for network in &view.networks {
        let _ = writeln!(
            text,
            "{:<16}  {:<10}  {:>8}  {:>6}%  {:>11}  {:>8}  {:>7}  {:<24}  {}",
            network.network,
            network.day,
            network.people,
            network.share_percent,
            network.submissions,
            network.ballots,
            network.agents,
            network.first_at,
            network.last_at,
        );
    }
    let _ = writeln!(
        text,
        "\n{:<16}  {:>8}  {:>7}  {:>11}  {:>8}  {:>7}  {:<24}  last",
        "ballot", "people", "share", "submissions", "networks", "agents", "first",
    );
    for ballot in &view.ballots {
        let _ = writeln!(
            text,
            "{:<16}  {:>8}  {:>6}%  {:>11}  {:>8}  {:>7}  {:<24}  {}",
            ballot.ballot,
            ballot.people,
            ballot.share_percent,
            ballot.submissions,
            ballot.networks,
            ballot.agents,
            ballot.first_at,
            ballot.last_at,
        );
    }
    let _ = writeln!(text, "\n{:<16}  {:>8}  {:>11}", "identity", "people", "submissions");
    for level in &view.levels {
        let _ =
            writeln!(text, "{:<16}  {:>8}  {:>11}", level.level, level.people, level.submissions);
    }
    let truncated = &view.truncated;
    for (is_truncated, what) in [
        (truncated.people, "people"),
        (truncated.networks, "networks"),
        (truncated.ballots, "ballots"),
    ] {
        if is_truncated {
            let _ = writeln!(text, "\ntoo many signals: the numbers of {what} are too low");
        }
    }
    let _ = writeln!(
        text,
        "\nSIGNALS budget={} from={} until={} people={} submissions={} withdrawals={} without_network={}",
        view.budget,
        view.from,
        view.until,
        view.people,
        view.submissions,
        view.withdrawals,
        view.without_network,
    );
    text
}
