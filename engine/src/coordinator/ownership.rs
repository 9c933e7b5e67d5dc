//! The ownership state of one assigned partition, and its transitions. Pure: no clock, no I/O, no lock.
//!
//! ```text
//! Assigned ── claim succeeded ───────────────> Claimed
//!    │                                            │
//!    ├── claim failed ────────────> Unclaimed     │ owner or log halted
//!    ├── log shorter than totals ─> Recovering    v
//!    └── log or stored state wrong ───────────> Halted
//! ```
//!
//! `Unclaimed` and `Recovering` partitions are claimed again when the group is rejoined. `Halted` needs an operator.
//! Every state ends when the group revokes the partition.

/// Who folds an assigned partition, or why this process does not. `O` is the running owner.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership<O> {
    /// The group has assigned the partition; the claim is in progress.
    Assigned,
    /// The log ends before the totals do and may still recover.
    Recovering { reason: String },
    /// The partition could not be claimed.
    Unclaimed { reason: String },
    /// An owner runs, or has ended. An owner ends when it is fenced, when the store has lost commits or person rows, or
    /// when the log skips records; the process rejoins then.
    Claimed { owner: O },
    /// Folding further could make wrong totals. The owner may still commit what it had folded before.
    Halted { reason: String, owner: Option<O> },
}

impl<O> Ownership<O> {
    /// Halts the partition. Its owner is kept until the partition is revoked.
    pub fn halt(self, reason: String) -> Self {
        let (_, owner) = self.detach_owner();
        Self::Halted { reason, owner }
    }

    /// Separates the owner, to be released, from the state without it.
    pub fn detach_owner(self) -> (Self, Option<O>) {
        match self {
            Self::Claimed { owner } => (Self::Assigned, Some(owner)),
            Self::Halted { reason, owner } => (Self::Halted { reason, owner: None }, owner),
            Self::Assigned | Self::Recovering { .. } | Self::Unclaimed { .. } => (self, None),
        }
    }

    pub fn owner(&self) -> Option<&O> {
        match self {
            Self::Claimed { owner } => Some(owner),
            Self::Halted { owner, .. } => owner.as_ref(),
            Self::Assigned | Self::Recovering { .. } | Self::Unclaimed { .. } => None,
        }
    }

    /// Whether rejoining the group would claim the partition again.
    pub fn is_claimed_by_rejoining(&self) -> bool {
        matches!(self, Self::Recovering { .. } | Self::Unclaimed { .. })
    }

    /// Why the process is not ready, if this partition makes it so.
    pub fn unready_reason(&self) -> Option<String> {
        match self {
            Self::Assigned | Self::Claimed { .. } => None,
            Self::Recovering { reason } | Self::Unclaimed { reason } => {
                Some(format!("not claimed yet: {reason}"))
            }
            Self::Halted { reason, .. } => Some(format!("halted: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovering() -> Ownership<u32> {
        Ownership::Recovering { reason: "short".into() }
    }

    fn unclaimed() -> Ownership<u32> {
        Ownership::Unclaimed { reason: "no store".into() }
    }

    fn halted(reason: &str, owner: Option<u32>) -> Ownership<u32> {
        Ownership::Halted { reason: reason.into(), owner }
    }

    #[test]
    fn a_halted_partition_keeps_its_owner_and_the_latest_reason() {
        let claimed = Ownership::Claimed { owner: 7 };
        let halted_once = claimed.halt("gap".into());
        assert_eq!(halted_once, halted("gap", Some(7)));
        assert_eq!(halted_once.halt("panic".into()), halted("panic", Some(7)));
    }

    #[test]
    fn a_partition_without_an_owner_halts_without_one() {
        for state in [Ownership::Assigned, recovering(), unclaimed()] {
            assert_eq!(state.halt("gap".into()), halted("gap", None));
        }
    }

    #[test]
    fn detaching_the_owner_keeps_the_reason_why_the_partition_is_not_folded() {
        let claimed = Ownership::Claimed { owner: 7 };
        assert_eq!(claimed.detach_owner(), (Ownership::Assigned, Some(7)));
        assert_eq!(halted("gap", Some(7)).detach_owner(), (halted("gap", None), Some(7)));
        assert_eq!(recovering().detach_owner(), (recovering(), None));
        assert_eq!(unclaimed().detach_owner(), (unclaimed(), None));
    }

    #[test]
    fn only_claimed_and_halted_partitions_have_an_owner() {
        assert_eq!(Ownership::Claimed { owner: 7 }.owner(), Some(&7));
        assert_eq!(halted("gap", Some(7)).owner(), Some(&7));
        for state in [Ownership::Assigned, recovering(), unclaimed(), halted("gap", None)] {
            assert_eq!(state.owner(), None);
        }
    }

    #[test]
    fn rejoining_helps_only_partitions_that_could_not_be_claimed() {
        assert!(recovering().is_claimed_by_rejoining());
        assert!(unclaimed().is_claimed_by_rejoining());
        for state in [Ownership::Assigned, Ownership::Claimed { owner: 7 }, halted("gap", None)] {
            assert!(!state.is_claimed_by_rejoining());
        }
    }

    #[test]
    fn a_partition_that_is_assigned_but_not_folded_makes_the_process_unready() {
        assert_eq!(Ownership::<u32>::Assigned.unready_reason(), None);
        assert_eq!(Ownership::Claimed { owner: 7 }.unready_reason(), None);
        assert_eq!(recovering().unready_reason(), Some("not claimed yet: short".into()));
        assert_eq!(unclaimed().unready_reason(), Some("not claimed yet: no store".into()));
        assert_eq!(halted("gap", Some(7)).unready_reason(), Some("halted: gap".into()));
    }
}
