//! For how long nobody folds a partition, when its owner lets go of it, loses it or crashes: worked out from what
//! processors write.
//!
//! It begins when the owner says that it has ended, or with a crash that the caller has seen, or, if nobody has said
//! anything, with the claim of the next owner. It ends with the first new record that the owner folds: the time that
//! claiming and loading take is in it, and so is the time until somebody submits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

/// What happens to a partition, as far as it matters here; of what happens at once, the first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ended,
    Crashed,
    Claimed,
    Folded,
}

/// How the lines begin that say so.
const MESSAGES: [(&str, Event); 8] = [
    ("partition claimed", Event::Claimed),
    ("first new record since the claim", Event::Folded),
    ("partition released", Event::Ended),
    ("released without a last commit", Event::Ended),
    ("another owner has claimed the partition", Event::Ended),
    ("what was lost is folded again", Event::Ended),
    ("a person's row is ahead of the totals", Event::Ended),
    ("the partition is halted", Event::Ended),
];

/// A time without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: u32,
    /// When it began.
    pub since: Timestamp,
    /// How long it was.
    pub lasted: Duration,
    /// Whether its owner crashed.
    pub crash: bool,
}

/// A processor's log, and when it was killed, if it was.
#[derive(Debug, Clone)]
pub struct Life {
    /// Everything it has written, a JSON object a line.
    pub log: String,
    /// When it was killed.
    pub killed: Option<Timestamp>,
}

/// All times without an owner, in the order in which they began.
///
/// # Errors
/// When one has not ended, or a line of a log cannot be read.
pub fn gaps(lives: &[Life]) -> Result<Vec<Gap>> {
    let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
    let mut open: BTreeMap<u32, Gap> = BTreeMap::new();
    let mut gaps = Vec::new();
    for (since, event, partition, who) in events(lives)? {
        let crash = event == Event::Crashed;
        let gap = Gap { partition, since, lasted: Duration::ZERO, crash };
        match event {
            Event::Claimed => {
                // The latest moment at which the owner before has lost it. The first of all takes it from nobody.
                if owners.insert(partition, who).is_some() {
                    open.entry(partition).or_insert(gap);
                }
            }
            // A former owner may not have heard yet that it is one.
            _ if owners.get(&partition) != Some(&who) => {}
            Event::Ended | Event::Crashed => {
                // One that was let go of again before anything was folded was without an owner all the time.
                open.entry(partition).or_insert(gap);
            }
            Event::Folded => {
                if let Some(gap) = open.remove(&partition) {
                    let lasted = since.duration_since(gap.since).unsigned_abs();
                    gaps.push(Gap { lasted, ..gap });
                }
            }
        }
    }
    ensure!(open.is_empty(), "nobody has gone on with {open:?}");
    gaps.sort_by_key(|gap| gap.since);
    Ok(gaps)
}

/// When, what, to which partition, and to which of the lives.
type Seen = (Timestamp, Event, u32, usize);

/// Everything that happened, in order.
fn events(lives: &[Life]) -> Result<Vec<Seen>> {
    let mut events = Vec::new();
    for (who, life) in lives.iter().enumerate() {
        let mut partitions = BTreeSet::new();
        for line in life.log.lines() {
            let Some((when, event, partition)) = event(line)? else { continue };
            events.push((when, event, partition, who));
            partitions.insert(partition);
        }
        if let Some(killed) = life.killed {
            let crashed = |partition| (killed, Event::Crashed, partition, who);
            events.extend(partitions.into_iter().map(crashed));
        }
    }
    events.sort_unstable();
    Ok(events)
}

fn event(line: &str) -> Result<Option<(Timestamp, Event, u32)>> {
    let Some((_, said)) = line.split_once("\"message\":\"") else { return Ok(None) };
    let Some((_, event)) = MESSAGES.into_iter().find(|(message, _)| said.starts_with(message))
    else {
        return Ok(None);
    };
    let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
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

    fn life(lines: &[(i64, &str, u32)], killed: Option<i64>) -> Life {
        let log =
            lines.iter().map(|(second, message, partition)| line(*second, message, *partition));
        Life { log: log.collect(), killed: killed.map(at) }
    }

    const CLAIMED: &str = "partition claimed";
    const RELEASED: &str = "partition released";
    const FENCED: &str = "another owner has claimed the partition; joining the group again";
    const FOLDED: &str = "first new record since the claim";

    fn lasted(lives: &[Life]) -> Vec<u64> {
        gaps(lives).unwrap().iter().map(|gap| gap.lasted.as_secs()).collect()
    }

    #[test]
    fn a_gap_is_from_the_release_to_the_next_record_and_not_to_the_claim() {
        let before = life(&[(0, CLAIMED, 3), (1, FOLDED, 3), (10, RELEASED, 3)], None);
        let after = life(&[(12, CLAIMED, 3), (15, FOLDED, 3)], None);
        let lasted = Duration::from_secs(5);
        let gap = Gap { partition: 3, since: at(10), lasted, crash: false };
        assert_eq!(gaps(&[before, after]).unwrap(), [gap]);
    }

    #[test]
    fn a_crash_leaves_what_was_owned_and_only_that() {
        let crashed =
            life(&[(0, CLAIMED, 1), (0, CLAIMED, 2), (1, FOLDED, 1), (2, RELEASED, 2)], Some(20));
        let heir = [(3, CLAIMED, 2), (3, FOLDED, 2), (24, CLAIMED, 1), (26, FOLDED, 1)];
        let found = gaps(&[crashed, life(&heir, None)]).unwrap();
        let of = |gap: &Gap| (gap.partition, gap.lasted.as_secs(), gap.crash);
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), [(2, 1, false), (1, 6, true)]);
    }

    #[test]
    fn passed_on_before_anything_was_folded_is_one_gap_and_one_that_never_ends_is_an_error() {
        let first = life(&[(0, CLAIMED, 0), (10, RELEASED, 0)], None);
        let between = life(&[(11, CLAIMED, 0), (12, RELEASED, 0)], None);
        assert!(gaps(&[first.clone(), between.clone()]).is_err());
        let last = life(&[(13, CLAIMED, 0), (14, FOLDED, 0)], None);
        assert_eq!(lasted(&[first, between, last]), [4]);
    }

    #[test]
    fn whatever_ends_an_owner_opens_a_gap() {
        for ending in [
            RELEASED,
            "released without a last commit: the store did not answer in time",
            FENCED,
            "what was lost is folded again",
            "a person's row is ahead of the totals: the store has lost an acknowledged commit",
            "the partition is halted; the others go on",
        ] {
            let before = life(&[(0, CLAIMED, 0), (1, FOLDED, 0), (10, ending, 0)], None);
            assert!(gaps(std::slice::from_ref(&before)).is_err(), "{ending}");
            let after = life(&[(12, CLAIMED, 0), (15, FOLDED, 0)], None);
            assert_eq!(lasted(&[before, after]), [5], "{ending}");
        }
    }

    #[test]
    fn lost_without_a_word_is_a_gap_from_the_next_claim_and_what_the_former_owner_says_is_late() {
        let before = [(0, CLAIMED, 0), (1, FOLDED, 0), (13, FENCED, 0)];
        let after = [(10, CLAIMED, 0), (12, FOLDED, 0)];
        assert_eq!(lasted(&[life(&before, None), life(&after, None)]), [2]);
        let zombie = [(0, CLAIMED, 0), (11, FOLDED, 0), (11, FENCED, 0)];
        assert_eq!(lasted(&[life(&zombie, None), life(&after, None)]), [2]);
    }
}
