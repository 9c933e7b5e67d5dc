//! The result of a run: one line, and everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::history::{History, Outcome};
use crate::kafka::LogRecord;
use crate::watch::Observations;

/// Maximum number of examples for each kind of violation.
const MAX_EXAMPLES: usize = 10;

/// The counts and violations of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Name of the run.
    pub run: String,
    /// Acknowledged requests.
    pub acknowledged: u64,
    /// Requests with unknown outcome.
    pub unknown: u64,
    /// Records that changed the totals.
    pub applied: u64,
    /// Records that repeated a submission id.
    pub duplicates: u64,
    /// Records that were not valid submissions.
    pub dead_lettered: u64,
    /// Acknowledged submissions that are not in the log.
    pub lost: u64,
    /// Surplus records in the log.
    pub doubled: u64,
    /// Backends and APIs that differ from the log.
    pub oracle_differences: u64,
    /// Responses that were older than an earlier one.
    pub regressions: u64,
    /// Services that exited unexpectedly.
    pub exits: u64,
    /// Time from the end of the last fault to the recovery.
    pub recovered: Duration,
    /// Number of injections of each fault.
    pub faults: BTreeMap<&'static str, u32>,
    /// Descriptions of all violations.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Notes the request counts and the differences to the log.
    pub fn note_history(&mut self, history: &History, log: &[LogRecord]) {
        let comparison = history.compare(log);
        self.acknowledged =
            history.count(|outcome| matches!(outcome, Outcome::Acknowledged { .. }));
        self.unknown = history.count(|outcome| outcome == Outcome::Unknown);
        self.lost = comparison.lost;
        self.doubled = comparison.doubled;
        self.wrong.extend(comparison.examples);
        self.wrong.extend(history.wrong.iter().take(MAX_EXAMPLES).cloned());
    }

    /// Notes what the readers observed.
    pub fn note_observations(&mut self, seen: Observations) {
        self.regressions += seen.regressions.len() as u64;
        self.wrong.extend(seen.regressions.into_iter().take(MAX_EXAMPLES));
        self.wrong.extend(seen.wrong.into_iter().take(MAX_EXAMPLES));
    }

    /// Notes services that exited unexpectedly.
    pub fn note_exits(&mut self, exits: Vec<String>) {
        self.exits += exits.len() as u64;
        self.wrong.extend(exits);
    }

    /// Notes every planned fault that was not injected.
    pub fn note_missing_faults(&mut self, planned: &BTreeMap<&'static str, u32>) {
        for (fault, times) in planned {
            let injected = self.faults.get(fault).copied().unwrap_or(0);
            if injected != *times {
                self.wrong.push(format!(
                    "{fault} was planned {times} times and injected {injected} times"
                ));
            }
        }
    }

    /// Fails if there is any violation.
    ///
    /// # Errors
    /// The verdict and all violations.
    pub fn require_success(&self) -> Result<()> {
        let no_counts =
            [self.lost, self.doubled, self.oracle_differences, self.regressions, self.exits]
                .iter()
                .all(|count| *count == 0);
        ensure!(no_counts && self.wrong.is_empty(), "{self}\n{}", self.wrong.join("\n"));
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, times)| format!("{fault}={times}")).collect();
        write!(
            f,
            "{} acked={} unknown={} applied={} duplicates={} dead={} lost={} doubled={} oracle_diff={} \
             went_back={} exits={} recovered_s={:.1} faults={{{}}}",
            self.run,
            self.acknowledged,
            self.unknown,
            self.applied,
            self.duplicates,
            self.dead_lettered,
            self.lost,
            self.doubled,
            self.oracle_differences,
            self.regressions,
            self.exits,
            self.recovered.as_secs_f64(),
            faults.join(","),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_has_its_documented_format() {
        let faults = BTreeMap::from([("kill", 2), ("pause", 1)]);
        let run = "CHAOS seed=7".to_owned();
        let verdict = Verdict { run, acknowledged: 5, faults, ..Verdict::default() };
        assert_eq!(
            verdict.to_string(),
            "CHAOS seed=7 acked=5 unknown=0 applied=0 duplicates=0 dead=0 lost=0 doubled=0 oracle_diff=0 went_back=0 \
             exits=0 recovered_s=0.0 faults={kill=2,pause=1}"
        );
        assert!(verdict.require_success().is_ok());
    }

    #[test]
    fn a_missing_fault_and_every_violation_count_fail_the_verdict() {
        let mut verdict = Verdict::default();
        verdict.note_missing_faults(&BTreeMap::from([("kill", 1)]));
        assert!(verdict.require_success().is_err());
        for failed in [
            Verdict { lost: 1, ..Verdict::default() },
            Verdict { doubled: 1, ..Verdict::default() },
            Verdict { oracle_differences: 1, ..Verdict::default() },
            Verdict { regressions: 1, ..Verdict::default() },
            Verdict { exits: 1, ..Verdict::default() },
            Verdict { wrong: vec!["anything".to_owned()], ..Verdict::default() },
        ] {
            assert!(failed.require_success().is_err());
        }
    }
}
