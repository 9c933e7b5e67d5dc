//! Signals grouped by network or by ballot, in bounded memory: when it is full, the smallest groups are forgotten.
//!
//! A flood of small groups can therefore not hide a large one, whenever that begins.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use schemas::{AgentDigest, PersonKey, Signal};

/// What the signals of one network or ballot show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary<K> {
    /// The network or ballot.
    pub key: K,
    /// People.
    pub people: u64,
    /// Submissions and withdrawals.
    pub submissions: u64,
    /// Different ballots of a network, or networks of a ballot.
    pub others: u64,
    /// Different user agents.
    pub agents: u64,
    /// Time of the first signal, in milliseconds since 1970.
    pub first_ms: u64,
    /// Time of the last signal, in milliseconds since 1970.
    pub last_ms: u64,
}

/// What a group takes besides its members, in members: a withdrawal of one person makes a group of little else.
const GROUP_OVERHEAD: usize = 4;

#[derive(Debug)]
struct Group {
    submissions: u64,
    people: HashSet<PersonKey>,
    others: HashSet<u64>,
    agents: HashSet<AgentDigest>,
    first_ms: u64,
    last_ms: u64,
}

impl Group {
    fn members(&self) -> usize {
        GROUP_OVERHEAD + self.people.len() + self.others.len() + self.agents.len()
    }
}

/// Groups by a key.
#[derive(Debug)]
pub(super) struct Groups<K> {
    groups: HashMap<K, Group>,
    /// Members of all groups.
    members: usize,
    max_members: usize,
    truncated: bool,
}

impl<K: Copy + Eq + Hash + Ord> Groups<K> {
    /// Creates groups that have together at most about `max_members` members.
    pub fn new(max_members: usize) -> Self {
        Self { groups: HashMap::new(), members: 0, max_members, truncated: false }
    }

    /// Adds a signal to a group; `other` is its ballot or network.
    pub fn add(&mut self, key: K, signal: &Signal, other: Option<u64>) {
        let max_of_group = self.max_members / 2;
        let at_ms = signal.accepted_at_ms;
        let before = self.groups.get(&key).map_or(0, Group::members);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            submissions: 0,
            people: HashSet::new(),
            others: HashSet::new(),
            agents: HashSet::new(),
            first_ms: at_ms,
            last_ms: at_ms,
        });
        group.submissions += 1;
        group.first_ms = group.first_ms.min(at_ms);
        group.last_ms = group.last_ms.max(at_ms);
        if before >= max_of_group {
            self.truncated |= !group.people.contains(&signal.person);
        } else {
            group.people.insert(signal.person);
            group.others.extend(other);
            group.agents.extend(signal.origin.agent);
        }
        self.members = self.members + group.members() - before;
        if self.members > self.max_members {
            self.forget_smallest();
        }
    }

    /// Forgets the groups with the fewest people, so that half of the memory is free.
    fn forget_smallest(&mut self) {
        self.truncated = true;
        let mut sizes: Vec<(Reverse<usize>, K, usize)> = self
            .groups
            .iter()
            .map(|(key, group)| (Reverse(group.people.len()), *key, group.members()))
            .collect();
        sizes.sort_unstable();
        let mut kept = 0;
        let first_forgotten = sizes.iter().position(|(_, _, members)| {
            kept += members;
            kept > self.max_members / 2
        });
        // The largest group stays, though its last members may have exceeded the half.
        for (_, key, members) in
            sizes.drain(first_forgotten.unwrap_or(usize::MAX).max(1).min(sizes.len())..)
        {
            self.groups.remove(&key);
            self.members -= members;
        }
    }

    /// Returns how many members all groups have, each with its overhead.
    pub fn members(&self) -> usize {
        debug_assert_eq!(self.members, self.groups.values().map(Group::members).sum::<usize>());
        self.members
    }

    /// Whether numbers are too low, or groups are missing.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns the groups with the most people, then submissions. Groups of one person are left out.
    pub fn largest(self, count: usize) -> Vec<GroupSummary<K>> {
        let summary = |(key, group): (K, Group)| GroupSummary {
            key,
            people: group.people.len() as u64,
            submissions: group.submissions,
            others: group.others.len() as u64,
            agents: group.agents.len() as u64,
            first_ms: group.first_ms,
            last_ms: group.last_ms,
        };
        let several = self.groups.into_iter().filter(|(_, group)| group.people.len() > 1);
        let mut groups: Vec<GroupSummary<K>> = several.map(summary).collect();
        groups.sort_unstable_by_key(|group| {
            (Reverse(group.people), Reverse(group.submissions), group.key)
        });
        groups.truncate(count);
        groups
    }
}
