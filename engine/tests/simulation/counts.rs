//! How often each event of a run happened: a run of many seeds must cover all of them.

use std::ops::AddAssign;

/// How often each event happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub commits: u64,
    pub takeovers: u64,
    pub crashes: u64,
    pub stalls: u64,
    pub rebalances: u64,
    pub fenced: u64,
    pub lost_requests: u64,
    pub lost_replies: u64,
    pub late_effects: u64,
    pub flushes: u64,
    pub dead_letters: u64,
    pub forgotten_commits: u64,
    pub went_back: u64,
    pub lost_rows: u64,
    /// Times the store went back to an earlier moment: commits and rows to the same one.
    pub back_together: u64,
    /// Commits to one, rows to another one.
    pub back_independently: u64,
    /// Only commits.
    pub back_commits: u64,
    /// Only rows.
    pub back_rows: u64,
    pub replayed_people: u64,
    pub sick_partitions: u64,
    /// Switches to another generation.
    pub flips: u64,
    /// Takeovers with the people of a shadow partition.
    pub from_shadows: u64,
    /// Takeovers with people that were read before the claim.
    pub prepared: u64,
    /// Takeovers with people that this process still had.
    pub kept: u64,
    /// Partitions that their next owner claimed while they were folded.
    pub handed_over: u64,
    /// Hand-overs that ended because the log could not be read.
    pub not_handed_over: u64,
}

impl Counts {
    /// Returns every count with its name.
    pub fn named(&self) -> [(&'static str, u64); 27] {
        [
            ("records", self.records),
            ("commits", self.commits),
            ("takeovers", self.takeovers),
            ("crashes", self.crashes),
            ("stalls", self.stalls),
            ("rebalances", self.rebalances),
            ("fenced", self.fenced),
            ("lost_requests", self.lost_requests),
            ("lost_replies", self.lost_replies),
            ("late_effects", self.late_effects),
            ("flushes", self.flushes),
            ("dead_letters", self.dead_letters),
            ("forgotten_commits", self.forgotten_commits),
            ("went_back", self.went_back),
            ("lost_rows", self.lost_rows),
            ("back_together", self.back_together),
            ("back_independently", self.back_independently),
            ("back_commits", self.back_commits),
            ("back_rows", self.back_rows),
            ("replayed_people", self.replayed_people),
            ("sick_partitions", self.sick_partitions),
            ("flips", self.flips),
            ("from_shadows", self.from_shadows),
            ("prepared", self.prepared),
            ("kept", self.kept),
            ("handed_over", self.handed_over),
            ("not_handed_over", self.not_handed_over),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.commits += other.commits;
        self.takeovers += other.takeovers;
        self.crashes += other.crashes;
        self.stalls += other.stalls;
        self.rebalances += other.rebalances;
        self.fenced += other.fenced;
        self.lost_requests += other.lost_requests;
        self.lost_replies += other.lost_replies;
        self.late_effects += other.late_effects;
        self.flushes += other.flushes;
        self.dead_letters += other.dead_letters;
        self.forgotten_commits += other.forgotten_commits;
        self.went_back += other.went_back;
        self.lost_rows += other.lost_rows;
        self.back_together += other.back_together;
        self.back_independently += other.back_independently;
        self.back_commits += other.back_commits;
        self.back_rows += other.back_rows;
        self.replayed_people += other.replayed_people;
        self.sick_partitions += other.sick_partitions;
        self.flips += other.flips;
        self.from_shadows += other.from_shadows;
        self.prepared += other.prepared;
        self.kept += other.kept;
        self.handed_over += other.handed_over;
        self.not_handed_over += other.not_handed_over;
    }
}
