//! For how long nobody folds a partition, when its owner lets go of it or crashes: worked out from what processors write.
//!
//! It begins with a release, or with a crash that the caller has seen, and ends with the first new record that an owner
//! folds: the time that claiming and loading take is in it, and so is the time until somebody submits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

/// What happens to a partition, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Released,
    Crashed,
    Claimed,
    Folded,
}

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
    let mut events = Vec::new();
    for (who, life) in lives.iter().enumerate() {
        for line in life.log.lines() {
            events
                .extend(event(line)?.map(|(when, event, partition)| (when, event, partition, who)));
        }
        if let Some(killed) = life.killed {
            let owned = owned_at_the_end(&events, who);
            events.extend(owned.map(|partition| (killed, Event::Crashed, partition, who)));
        }
    }
    events.sort_unstable();
    let mut open: BTreeMap<u32, Gap> = BTreeMap::new();
    let mut gaps = Vec::new();
    for (when, event, partition, _) in events {
        match event {
            Event::Released | Event::Crashed => {
                let crash = event == Event::Crashed;
                let gap = Gap { partition, since: when, lasted: Duration::ZERO, crash };
                // One that was let go of again before anything was folded was without an owner all the time.
                open.entry(partition).or_insert(gap);
            }
            Event::Claimed => {}
            Event::Folded => {
                if let Some(gap) = open.remove(&partition) {
                    gaps.push(Gap { lasted: when.duration_since(gap.since).unsigned_abs(), ..gap });
                }
            }
        }
    }
    ensure!(open.is_empty(), "nobody has gone on with {open:?}");
    gaps.sort_by_key(|gap| gap.since);
    Ok(gaps)
}

type Seen = (Timestamp, Event, u32, usize);

/// What a processor had claimed and not released.
fn owned_at_the_end(events: &[Seen], who: usize) -> impl Iterator<Item = u32> + use<> {
    let mut owned = BTreeMap::new();
    for (_, event, partition, _) in events.iter().filter(|(.., by)| *by == who) {
        owned.insert(*partition, *event);
    }
    owned.into_iter().filter(|(_, last)| *last != Event::Released).map(|(partition, _)| partition)
}

fn event(line: &str) -> Result<Option<(Timestamp, Event, u32)>> {
    let kind = [
        ("\"partition released\"", Event::Released),
        ("\"partition claimed\"", Event::Claimed),
        ("\"first new record since the claim\"", Event::Folded),
    ];
    let Some((_, event)) = kind.into_iter().find(|(message, _)| line.contains(message)) else {
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
    const FOLDED: &str = "first new record since the claim";

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
        let heir = life(&[(3, FOLDED, 2), (24, CLAIMED, 1), (26, FOLDED, 1)], None);
        let found = gaps(&[crashed, heir]).unwrap();
        let of = |gap: &Gap| (gap.partition, gap.lasted.as_secs(), gap.crash);
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), [(2, 1, false), (1, 6, true)]);
    }

    #[test]
    fn passed_on_before_anything_was_folded_is_one_gap_and_one_that_never_ends_is_an_error() {
        let first = life(&[(10, RELEASED, 0)], None);
        let between = life(&[(11, CLAIMED, 0), (12, RELEASED, 0)], None);
        assert!(gaps(&[first.clone(), between.clone()]).is_err());
        let last = life(&[(13, CLAIMED, 0), (14, FOLDED, 0)], None);
        let found = gaps(&[first, between, last]).unwrap();
        assert_eq!(found.iter().map(|gap| gap.lasted.as_secs()).collect::<Vec<_>>(), [4]);
    }
}
