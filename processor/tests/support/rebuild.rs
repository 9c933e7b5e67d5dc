//! Runs a rebuild as operators do: as a job, which the fixture's processor executes.

use std::time::Duration;

use operations::jobs::{RebuildComparison, rebuild_result};
use runtime::clock::now_ms;
use schemas::Generation;
use schemas::job::{JobId, JobKind, JobState, NewJob, Priority};
use storage::jobs::{JobStore, submit};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const REBUILD_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a rebuild. Not every test reads all of it.
#[allow(dead_code)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildOutcome {
    /// The generation that was built.
    pub generation: Generation,
    /// The generation it was compared with.
    pub before: Generation,
    /// Minimum number of records that it was compared at.
    pub records: u64,
    /// Differences, one per line.
    pub differences: Vec<String>,
}

/// Submits a rebuild and waits for its end. Returns the reason if the job is dead.
pub async fn rebuild(jobs: &dyn JobStore, dry_run: bool) -> Result<RebuildOutcome, String> {
    let now_ms = now_ms();
    let id = JobId::new(now_ms, Uuid::new_v4());
    let (kind, priority) = (JobKind::Rebuild { dry_run }, Priority::Normal);
    let new = NewJob { id, kind, priority, requested_by: "a test".into() };
    submit(jobs, new, now_ms).await.unwrap();
    let ended = async {
        loop {
            let job = jobs.job(id).await.unwrap().unwrap();
            if job.is_ended() {
                return job;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let job = timeout(REBUILD_TIMEOUT, ended).await.expect("the rebuild takes too long");
    if let JobState::Dead { reason, .. } = &job.state {
        return Err(reason.to_string());
    }
    let (generation, comparison) = rebuild_result(&job).unwrap();
    let RebuildComparison { before, records, differences, lines } = comparison.unwrap();
    let lines: Vec<String> = lines.as_str().lines().map(str::to_owned).collect();
    assert_eq!(lines.len() as u64, differences, "not every difference has a line");
    Ok(RebuildOutcome { generation, before, records, differences: lines })
}
