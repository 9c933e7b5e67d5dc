//! Checking an archive: every segment, that nothing is missing, and that it ends in its log.

use schemas::{PartitionId, Position};

use super::{Archive, Segment, WriteError, missing_before};
use crate::log::LogReader;

/// What checking an archive found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments that are as they were written.
    pub segments: u64,
    /// Their records.
    pub records: u64,
    /// What is wrong.
    pub faults: Vec<String>,
}

impl Archive {
    /// Reads every segment of a partition, and compares the whole with where its log begins now. Blocks. `read` is told
    /// of every segment, and says whether to go on.
    pub fn check(
        &self,
        partition: PartitionId,
        low: Position,
        mut read: impl FnMut(&Segment) -> bool,
    ) -> Found {
        let mut found = Found::default();
        let segments = match self.segments(partition) {
            Ok(segments) => segments,
            Err(error) => {
                found.faults.push(format!("{} cannot be read: {error}", self.dir.display()));
                return found;
            }
        };
        // What is after the log's beginning is missing as well, if there is more behind it.
        let end = segments.last().map_or(low, |last| last.end.max(low));
        for gap in missing_before(&segments, end) {
            found.faults.push(format!(
                "partition {partition}: the archive has no records {}..{}, and the log begins at {low}",
                gap.start, gap.end
            ));
        }
        for (one, next) in segments.iter().zip(segments.iter().skip(1)) {
            if next.first < one.end {
                let (one, next) = (one.path.display(), next.path.display());
                found.faults.push(format!("partition {partition}: {one} and {next} overlap"));
            }
        }
        for segment in segments {
            if !read(&segment) {
                return found;
            }
            match self.count(&segment) {
                Ok(records) => {
                    found.segments += 1;
                    found.records += records;
                }
                Err(fault) => found.faults.push(fault.to_string()),
            }
        }
        found
    }

    /// What shows that a partition's archive does not end in this log, if anything does. What cannot be read of the
    /// archive shows nothing: [`Archive::check`] says so. `log` has to be the log itself.
    ///
    /// # Errors
    /// When the log does not answer, or not as it should.
    pub async fn fault_at_its_end(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
    ) -> Result<Option<String>, WriteError> {
        let archive = self.clone();
        let listed = tokio::task::spawn_blocking(move || archive.segments(partition)).await;
        let segments = listed.map_err(|error| WriteError::Failed(error.to_string()))?;
        let Some(last) = segments.unwrap_or_default().pop() else { return Ok(None) };
        let bounds = log.bounds(partition).await?;
        match self.ends_in(log, last, bounds).await {
            Ok(()) | Err(WriteError::Segment(_)) => Ok(None),
            Err(other @ WriteError::OtherLog { .. }) => Ok(Some(other.to_string())),
            Err(error) => Err(error),
        }
    }

    fn count(&self, segment: &Segment) -> Result<u64, super::SegmentFault> {
        let mut records = segment.open(&self.log)?;
        let mut count = 0;
        while records.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}
