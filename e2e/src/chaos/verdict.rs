//! What a run came to: one line, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::history::{History, Outcome};
use crate::kafka::LogRecord;
use crate::watch::Seen;

/// Of each kind of what is wrong so many are quoted.
const QUOTED: usize = 10;

/// The counts of a run and everything that must not be.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Which run.
    pub run: String,
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// Requests whose outcome no client knows.
    pub unknown: u64,
    /// Records of the log that took effect.
    pub applied: u64,
    /// Records that repeated an id.
    pub duplicates: u64,
    /// Records that were not submissions.
    pub dead_lettered: u64,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// In the log more often than asked for.
    pub doubled: u64,
    /// Places that do not show what the log says.
    pub oracle_differences: u64,
    /// Versions and totals that readers saw after newer ones.
    pub went_back: u64,
    /// Services that ended though nobody asked for it.
    pub exits: u64,
    /// From the end of the last fault until all was right.
    pub recovered: Duration,
    /// How often each fault was there.
    pub faults: BTreeMap<&'static str, u32>,
    /// Everything that must not be, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Notes what was asked for, and whether the log agrees.
    pub fn note_history(&mut self, history: &History, log: &[LogRecord]) {
        let compared = history.compare(log);
        self.acknowledged =
            history.count(|outcome| matches!(outcome, Outcome::Acknowledged { .. }));
        self.unknown = history.count(|outcome| outcome == Outcome::Unknown);
        self.lost = compared.lost;
        self.doubled = compared.doubled;
        self.wrong.extend(compared.examples);
        self.wrong.extend(history.wrong.iter().take(QUOTED).cloned());
    }

    /// Notes what readers saw.
    pub fn note_seen(&mut self, seen: Seen) {
        self.went_back += seen.went_back.len() as u64;
        self.wrong.extend(seen.went_back.into_iter().take(QUOTED));
        self.wrong.extend(seen.wrong.into_iter().take(QUOTED));
    }

    /// Notes who ended though nobody asked for it.
    pub fn note_exits(&mut self, exits: Vec<String>) {
        self.exits += exits.len() as u64;
        self.wrong.extend(exits);
    }

    /// Notes every fault of the plan that was not there.
    pub fn missing(&mut self, planned: &BTreeMap<&'static str, u32>) {
        for (fault, times) in planned {
            let done = self.faults.get(fault).copied().unwrap_or(0);
            if done != *times {
                self.wrong
                    .push(format!("{fault} was planned {times} times and was there {done} times"));
            }
        }
    }

    /// Whether all is as it must be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn require_right(&self) -> Result<()> {
        let nothing =
            [self.lost, self.doubled, self.oracle_differences, self.went_back, self.exits]
                .iter()
                .all(|count| *count == 0);
        ensure!(nothing && self.wrong.is_empty(), "{self}\n{}", self.wrong.join("\n"));
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
            self.went_back,
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
    fn the_line_has_the_shape_that_others_read() {
        let faults = BTreeMap::from([("kill", 2), ("pause", 1)]);
        let run = "CHAOS seed=7".to_owned();
        let verdict = Verdict { run, acknowledged: 5, faults, ..Verdict::default() };
        assert_eq!(
            verdict.to_string(),
            "CHAOS seed=7 acked=5 unknown=0 applied=0 duplicates=0 dead=0 lost=0 doubled=0 oracle_diff=0 went_back=0 \
             exits=0 recovered_s=0.0 faults={kill=2,pause=1}"
        );
        assert!(verdict.require_right().is_ok());
    }

    #[test]
    fn a_planned_fault_that_was_not_there_is_wrong_and_so_is_each_count() {
        let mut verdict = Verdict::default();
        verdict.missing(&BTreeMap::from([("kill", 1)]));
        assert!(verdict.require_right().is_err());
        for wrong in [
            Verdict { lost: 1, ..Verdict::default() },
            Verdict { doubled: 1, ..Verdict::default() },
            Verdict { oracle_differences: 1, ..Verdict::default() },
            Verdict { went_back: 1, ..Verdict::default() },
            Verdict { exits: 1, ..Verdict::default() },
            Verdict { wrong: vec!["anything".to_owned()], ..Verdict::default() },
        ] {
            assert!(wrong.require_right().is_err());
        }
    }
}
