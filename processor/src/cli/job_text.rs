//! Background jobs as text: one line, all fields, and the list.

use std::fmt::Write as _;

use schemas::job::{Job, JobState, MAX_ATTEMPTS};
use storage::jobs::JobRows;

/// Formats all jobs, one per line; the last line counts them by state.
pub(super) fn job_list(JobRows { jobs, unreadable }: &JobRows) -> String {
    let mut text = String::new();
    for job in jobs {
        let _ = writeln!(text, "{}", job_line(job));
    }
    for row in unreadable {
        let _ = writeln!(text, "{}  cannot be read: of a newer release, or damaged", row.id);
    }
    let count = |state: &str| jobs.iter().filter(|job| job.state.name() == state).count();
    let counts: Vec<String> =
        JobState::NAMES.iter().map(|state| format!("{state}={}", count(state))).collect();
    let _ = writeln!(text, "JOBS {} unreadable={}", counts.join(" "), unreadable.len());
    text
}

/// Formats a job as one line.
pub(super) fn job_line(job: &Job) -> String {
    let kind = job.kind.to_string();
    let mut text = format!("{}  {:8}  {kind:17}  {:9}", job.id, job.priority, job.state.name());
    let summary = match &job.state {
        JobState::Queued { cancelling: true, .. } | JobState::Running { cancelling: true, .. } => {
            "is being cancelled"
        }
        JobState::Queued { .. } => {
            job.failed_attempts.last().map_or("", |last| last.error.as_str())
        }
        JobState::Running { .. } => job.progress.message.as_str(),
        JobState::Succeeded { result, .. } => result.as_str(),
        JobState::Dead { reason, .. } => reason.as_str(),
        JobState::Cancelled { .. } => "",
    };
    let first = summary.lines().next().unwrap_or_default();
    let _ = write!(text, "  {first}");
    text.trim_end().to_owned()
}

/// Formats everything about a job, one field per line.
pub(super) fn job_details(job: &Job, now_ms: u64) -> String {
    let ago = |at_ms: u64| format!("{} s ago", now_ms.saturating_sub(at_ms) / 1_000);
    let mut text = format!("job {}\n", job.id);
    let mut field = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:9} {}", value.replace('\n', "\n            "));
    };
    field("kind", job.kind.to_string());
    field("priority", job.priority.to_string());
    field("asked by", format!("{}, {}", job.requested_by, ago(job.created_at_ms)));
    field("state", job.state.name().to_owned());
    match &job.state {
        JobState::Queued { not_before_ms, cancelling } => {
            if let wait @ 1.. = not_before_ms.saturating_sub(now_ms) {
                field("due", format!("in {} s", wait.div_ceil(1_000)));
            }
            if *cancelling {
                field("cancel", "is cancelled by the next worker".to_owned());
            }
        }
        JobState::Running { attempt, cancelling } => {
            field("worker", format!("{}, since {}", attempt.worker, ago(attempt.began_at_ms)));
            field("heartbeat", ago(job.changed_at_ms));
            if *cancelling {
                field("cancel", "is cancelled by its worker".to_owned());
            }
        }
        JobState::Succeeded { attempt, ended_at_ms, verdict, result } => {
            let took_ms = ended_at_ms.saturating_sub(attempt.began_at_ms);
            field("worker", format!("{}, in {} ms", attempt.worker, took_ms));
            field("ended", ago(*ended_at_ms));
            field("verdict", verdict.name().to_owned());
            field("result", result.to_string());
        }
        JobState::Dead { ended_at_ms, reason, cancelling } => {
            field("ended", ago(*ended_at_ms));
            field("reason", reason.to_string());
            if *cancelling {
                field("cancel", "is cancelled when it is retried".to_owned());
            }
        }
        JobState::Cancelled { ended_at_ms } => field("ended", ago(*ended_at_ms)),
    }
    if !job.progress.message.as_str().is_empty() {
        field("progress", job.progress.message.to_string());
    }
    field("attempts", format!("{} of {MAX_ATTEMPTS}", job.attempts()));
    for failed in &job.failed_attempts {
        let when = ago(failed.failed_at_ms);
        field("failed", format!("{} of {}: {}", when, failed.attempt.worker, failed.error));
    }
    text
}
