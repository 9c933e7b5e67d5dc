//! Archiving as a job: what is whole stays, and another try goes on from there.

use schemas::job::Verdict;

use super::{Done, Failure, Held, KindsParts, told};
use crate::archive::{ArchiveError, ArchiveParts, ArchiveProgress, archive};

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Away(reason) => Self::Again(reason),
            ArchiveError::Wrong(reason) => Self::InVain(reason),
            // A disk that is full may have room later. A gap does not go away, and is said five times.
            ArchiveError::Write(error) => Self::Again(error.to_string()),
        }
    }
}

pub(super) async fn run(parts: &KindsParts, job: &Held) -> Result<Done, Failure> {
    let Some(dir) = &parts.archive_dir else {
        return Err(Failure::InVain("no folder is configured for it: `archive.dir`".to_owned()));
    };
    let log = parts.current_log().await?;
    let places = ArchiveParts::of(&log, parts.logs.as_ref(), &parts.store, dir).await?;
    let progress = ArchiveProgress::default();
    let look = || {
        let (done, of) = progress.records();
        (done, of, format!("{done} of {of} records archived"))
    };
    let archived = told(job, look, archive(&places, &progress)).await?;
    let whole: u64 = archived.iter().map(|partition| partition.end.0).sum();
    let new: u64 = archived.iter().map(|it| it.end.0 - it.from.0).sum();
    let result = format!("{whole} records, {new} of them new: {}", places.dir.display());
    Ok(Done { verdict: Verdict::Clean, result: result.into() })
}
