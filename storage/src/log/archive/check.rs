//! Verifies an archive: every segment, that no records are missing, and that its end matches the log.

use schemas::{PartitionId, Position};

use super::{Archive, ArchiveWriteError, Segment, missing_before};
use crate::log::LogReader;

/// The result of checking an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ArchiveCheckReport {
    /// Number of intact segments.
    pub segments: u64,
    /// Number of records in them.
    pub records: u64,
    /// Descriptions of all faults.
    pub faults: Vec<String>,
}

impl Archive {
    /// Reads every segment of a partition, and checks that they continue in the log. The log's first position is `low`.
    /// Calls `on_segment` before each segment, and stops if it returns `false`. Blocks.
    pub fn check(
        &self,
        partition: PartitionId,
        low: Position,
        mut on_segment: impl FnMut(&Segment) -> bool,
    ) -> ArchiveCheckReport {
        let mut report = ArchiveCheckReport::default();
        let segments = match self.segments(partition) {
            Ok(segments) => segments,
            Err(error) => {
                report.faults.push(format!("{} cannot be read: {error}", self.dir.display()));
                return report;
            }
        };
        // A gap after the log's first position counts as well, if a later segment follows it.
        let end = segments.last().map_or(low, |last| last.end.max(low));
        for gap in missing_before(&segments, end) {
            report.faults.push(format!(
                "partition {partition}: the archive has no records {}..{}, and the log begins at {low}",
                gap.start, gap.end
            ));
        }
        for (one, next) in segments.iter().zip(segments.iter().skip(1)) {
            if next.first < one.end {
                let (one, next) = (one.path.display(), next.path.display());
                report.faults.push(format!("partition {partition}: {one} and {next} overlap"));
            }
        }
        for segment in segments {
            if !on_segment(&segment) {
                return report;
            }
            match self.count_records(&segment) {
                Ok(records) => {
                    report.segments += 1;
                    report.records += records;
                }
                Err(fault) => report.faults.push(fault.to_string()),
            }
        }
        report
    }

    /// Describes how the end of a partition's archive contradicts the log; `None` if it does not. An unreadable segment
    /// is no contradiction: [`Archive::check`] reports it. `log` must be the log without its archive.
    ///
    /// # Errors
    /// When the log is unavailable or lacks records.
    pub async fn tail_mismatch(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
    ) -> Result<Option<String>, ArchiveWriteError> {
        let archive = self.clone();
        let listed = tokio::task::spawn_blocking(move || archive.segments(partition)).await;
        let segments = listed.map_err(|error| ArchiveWriteError::Failed(error.to_string()))?;
        let Some(last) = segments.unwrap_or_default().pop() else { return Ok(None) };
        let bounds = log.bounds(partition).await?;
        match self.check_tail(log, last, bounds).await {
            Ok(()) | Err(ArchiveWriteError::Segment(_)) => Ok(None),
            Err(other @ ArchiveWriteError::OtherLog { .. }) => Ok(Some(other.to_string())),
            Err(error) => Err(error),
        }
    }

    fn count_records(&self, segment: &Segment) -> Result<u64, super::SegmentFault> {
        let mut records = segment.open(&self.log)?;
        let mut count = 0;
        while records.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}
