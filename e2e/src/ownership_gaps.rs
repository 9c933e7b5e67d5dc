//! Gaps in the ownership of partitions, computed from processor logs: how long a partition is not folded when its owner
//! releases it, loses it or crashes.
//!
//! A gap starts when the owner logs that it has stopped, at a crash that the caller observed, or, if neither is known,
//! at the claim of the next owner. It ends at the first new record that the next owner folds, so it includes the time
//! for claiming, restoring person rows, and waiting for the next submission.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

/// An ownership event of a partition. The order of the variants sorts simultaneous events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ended,
    Crashed,
    Claimed,
    Folded,
}

/// The log messages of the events, by prefix.
const MESSAGES: [(&str, Event); 7] = [
    ("partition claimed", Event::Claimed),
    ("first new record since the claim", Event::Folded),
    ("partition released", Event::Ended),
    ("partition fenced by another owner", Event::Ended),
    ("the store lost acknowledged commits, folding their records again", Event::Ended),
    ("person row is ahead of the totals", Event::Ended),
    ("partition halted", Event::Ended),
];

/// A period without an active owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnershipGap {
    /// The partition.
    pub partition: u32,
    /// Start of the gap.
    pub since: Timestamp,
    /// Length of the gap.
    pub lasted: Duration,
    /// Whether the owner crashed.
    pub crash: bool,
}

/// The log of one processor process, and the time of its crash.
#[derive(Debug, Clone)]
pub struct ProcessLog {
    /// The log, one JSON object per line.
    pub log: String,
    /// When the process was killed, if it was.
    pub killed: Option<Timestamp>,
}

/// Finds all gaps, in order of their start.
///
/// # Errors
/// When a gap has not ended, or a log line cannot be parsed.
pub fn gaps(logs: &[ProcessLog]) -> Result<Vec<OwnershipGap>> {
    let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
    let mut open: BTreeMap<u32, OwnershipGap> = BTreeMap::new();
    let mut gaps = Vec::new();
    for (since, event, partition, process) in events(logs)? {
        let crash = event == Event::Crashed;
        let gap = OwnershipGap { partition, since, lasted: Duration::ZERO, crash };
        match event {
            Event::Claimed => {
                // The previous owner has lost the partition by now. The first claim of a partition opens no gap.
                if owners.insert(partition, process).is_some() {
                    open.entry(partition).or_insert(gap);
                }
            }
            // A fenced owner may not know yet that it was fenced.
            _ if owners.get(&partition) != Some(&process) => {}
            Event::Ended | Event::Crashed => {
                // Released again before the first new record: the gap continues.
                open.entry(partition).or_insert(gap);
            }
            Event::Folded => {
                if let Some(gap) = open.remove(&partition) {
                    let lasted = since.duration_since(gap.since).unsigned_abs();
                    gaps.push(OwnershipGap { lasted, ..gap });
                }
            }
        }
    }
    ensure!(open.is_empty(), "these gaps have not ended: {open:?}");
    gaps.sort_by_key(|gap| gap.since);
    Ok(gaps)
}

/// Time, event, partition, and index of the process log.
type LoggedEvent = (Timestamp, Event, u32, usize);

/// Collects the events of all logs, sorted by time.
fn events(logs: &[ProcessLog]) -> Result<Vec<LoggedEvent>> {
    let mut events = Vec::new();
    for (process, log) in logs.iter().enumerate() {
        let mut partitions = BTreeSet::new();
        for line in log.log.lines() {
            let Some((when, event, partition)) = parse_event(line)? else { continue };
            events.push((when, event, partition, process));
            partitions.insert(partition);
        }
        if let Some(killed) = log.killed {
            let crashed = |partition| (killed, Event::Crashed, partition, process);
            events.extend(partitions.into_iter().map(crashed));
        }
    }
    events.sort_unstable();
    Ok(events)
}

fn parse_event(line: &str) -> Result<Option<(Timestamp, Event, u32)>> {
    let Some((_, message)) = line.split_once("\"message\":\"") else { return Ok(None) };
    let Some((_, event)) = MESSAGES.into_iter().find(|(prefix, _)| message.starts_with(prefix))
    else {
        return Ok(None);
    };
    let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
    let text = |field: &str| line[field].as_str().with_context(|| format!("no {field} in {line}"));
    Ok(Some((text("timestamp")?.parse()?, event, text("partition")?.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn line(second: i64, message: &str, partition: u32) -> String {
        format!(
            "{{\"timestamp\":\"{}\",\"message\":\"{message}\",\"partition\":\"{partition}\"}}\n",
            at(second)
        )
    }

    fn process_log(lines: &[(i64, &str, u32)], killed: Option<i64>) -> ProcessLog {
        let log =
            lines.iter().map(|(second, message, partition)| line(*second, message, *partition));
        ProcessLog { log: log.collect(), killed: killed.map(at) }
    }

    const CLAIMED: &str = "partition claimed";
    const RELEASED: &str = "partition released";
    const FENCED: &str = "partition fenced by another owner";
    const FOLDED: &str = "first new record since the claim";

    fn lasted(logs: &[ProcessLog]) -> Vec<u64> {
        gaps(logs).unwrap().iter().map(|gap| gap.lasted.as_secs()).collect()
    }

    #[test]
    fn a_gap_lasts_from_the_release_to_the_next_new_record() {
        let before = process_log(&[(0, CLAIMED, 3), (1, FOLDED, 3), (10, RELEASED, 3)], None);
        let after = process_log(&[(12, CLAIMED, 3), (15, FOLDED, 3)], None);
        let lasted = Duration::from_secs(5);
        let gap = OwnershipGap { partition: 3, since: at(10), lasted, crash: false };
        assert_eq!(gaps(&[before, after]).unwrap(), [gap]);
    }

    #[test]
    fn a_crash_opens_gaps_of_the_owned_partitions_only() {
        let crashed = process_log(
            &[(0, CLAIMED, 1), (0, CLAIMED, 2), (1, FOLDED, 1), (2, RELEASED, 2)],
            Some(20),
        );
        let successor = [(3, CLAIMED, 2), (3, FOLDED, 2), (24, CLAIMED, 1), (26, FOLDED, 1)];
        let found = gaps(&[crashed, process_log(&successor, None)]).unwrap();
        let summary = |gap: &OwnershipGap| (gap.partition, gap.lasted.as_secs(), gap.crash);
        assert_eq!(found.iter().map(summary).collect::<Vec<_>>(), [(2, 1, false), (1, 6, true)]);
    }

    #[test]
    fn a_release_before_the_first_record_extends_the_gap_and_an_open_gap_is_an_error() {
        let first = process_log(&[(0, CLAIMED, 0), (10, RELEASED, 0)], None);
        let between = process_log(&[(11, CLAIMED, 0), (12, RELEASED, 0)], None);
        assert!(gaps(&[first.clone(), between.clone()]).is_err());
        let last = process_log(&[(13, CLAIMED, 0), (14, FOLDED, 0)], None);
        assert_eq!(lasted(&[first, between, last]), [4]);
    }

    #[test]
    fn every_way_of_losing_a_partition_opens_a_gap() {
        for ending in [
            RELEASED,
            "partition released without a final commit: the store did not respond in time",
            FENCED,
            "the store lost acknowledged commits, folding their records again",
            "person row is ahead of the totals: the store lost an acknowledged commit",
            "partition halted",
        ] {
            let before = process_log(&[(0, CLAIMED, 0), (1, FOLDED, 0), (10, ending, 0)], None);
            assert!(gaps(std::slice::from_ref(&before)).is_err(), "{ending}");
            let after = process_log(&[(12, CLAIMED, 0), (15, FOLDED, 0)], None);
            assert_eq!(lasted(&[before, after]), [5], "{ending}");
        }
    }

    #[test]
    fn a_silent_loss_opens_a_gap_at_the_next_claim_and_ignores_later_lines_of_the_fenced_owner() {
        let before = [(0, CLAIMED, 0), (1, FOLDED, 0), (13, FENCED, 0)];
        let after = [(10, CLAIMED, 0), (12, FOLDED, 0)];
        assert_eq!(lasted(&[process_log(&before, None), process_log(&after, None)]), [2]);
        let zombie = [(0, CLAIMED, 0), (11, FOLDED, 0), (11, FENCED, 0)];
        assert_eq!(lasted(&[process_log(&zombie, None), process_log(&after, None)]), [2]);
    }
}
