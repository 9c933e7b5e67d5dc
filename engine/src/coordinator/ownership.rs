//! The ownership state of one assigned partition, and its transitions. Pure: no clock, no I/O, no lock.
//!
//! ```text
//! Assigned ── claim succeeded ──> Claimed <── claimed again ──┐
//!    │                             │   │                      │
//!    │ claim failed, or log short  │   └── owner ended ──> Unclaimed
//!    ├─────────────────────────────┼───────────────────────────^
//!    │                             │ owner or log halted
//!    └── log or stored state wrong ┴──> Halted
//! ```
//!
//! `Unclaimed` partitions are claimed again, in place and with backoff. `Halted` needs an operator. Every state ends
//! when the group revokes the partition.

/// Who folds an assigned partition, or why this process does not. `O` is the running owner.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership<O> {
    /// The group has assigned the partition; the first claim is in progress.
    Assigned,
    /// The partition could not be claimed, or its owner has ended: when it was fenced, when the store has lost commits
    /// or person rows, or when the log skipped records. It is about to be claimed again.
    Unclaimed { reason: String },
    /// An owner runs.
    Claimed { owner: O },
    /// Folding further could make wrong totals. The owner may still commit what it had folded before.
    Halted { reason: String, owner: Option<O> },
}

impl<O> Ownership<O> {
    /// Halts the partition. Its owner is kept until the partition is revoked.
    pub fn halt(self, reason: String) -> Self {
        let owner = match self {
            Self::Claimed { owner } => Some(owner),
            Self::Halted { owner, .. } => owner,
            Self::Assigned | Self::Unclaimed { .. } => None,
        };
        Self::Halted { reason, owner }
    }

    /// Ends the ownership until the partition is claimed again. A halted partition stays halted.
    pub fn unclaim(self, reason: String) -> Self {
        match self {
            Self::Halted { reason, .. } => Self::Halted { reason, owner: None },
            Self::Assigned | Self::Unclaimed { .. } | Self::Claimed { .. } => {
                Self::Unclaimed { reason }
            }
        }
    }

    pub fn owner(&self) -> Option<&O> {
        match self {
            Self::Claimed { owner } => Some(owner),
            Self::Halted { owner, .. } => owner.as_ref(),
            Self::Assigned | Self::Unclaimed { .. } => None,
        }
    }

    pub fn is_halted(&self) -> bool {
        matches!(self, Self::Halted { .. })
    }

    /// Why the process is not ready, if this partition makes it so.
    pub fn unready_reason(&self) -> Option<String> {
        match self {
            Self::Assigned | Self::Claimed { .. } => None,
            Self::Unclaimed { reason } => Some(format!("not claimed yet: {reason}")),
            Self::Halted { reason, .. } => Some(format!("halted: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for state in [Ownership::Assigned, unclaimed()] {
            assert_eq!(state.halt("gap".into()), halted("gap", None));
        }
    }

    #[test]
    fn a_partition_that_is_claimed_again_has_no_owner_meanwhile() {
        for state in [Ownership::Assigned, Ownership::Claimed { owner: 7 }, unclaimed()] {
            assert_eq!(state.unclaim("no store".into()), unclaimed());
        }
    }

    #[test]
    fn a_halted_partition_is_not_claimed_again() {
        assert_eq!(halted("gap", Some(7)).unclaim("no store".into()), halted("gap", None));
        assert!(halted("gap", None).is_halted());
    }

    #[test]
    fn only_claimed_and_halted_partitions_have_an_owner() {
        assert_eq!(Ownership::Claimed { owner: 7 }.owner(), Some(&7));
        assert_eq!(halted("gap", Some(7)).owner(), Some(&7));
        for state in [Ownership::Assigned, unclaimed(), halted("gap", None)] {
            assert_eq!(state.owner(), None);
        }
    }

    #[test]
    fn a_partition_that_is_assigned_but_not_folded_makes_the_process_unready() {
        assert_eq!(Ownership::<u32>::Assigned.unready_reason(), None);
        assert_eq!(Ownership::Claimed { owner: 7 }.unready_reason(), None);
        assert_eq!(unclaimed().unready_reason(), Some("not claimed yet: no store".into()));
        assert_eq!(halted("gap", Some(7)).unready_reason(), Some("halted: gap".into()));
    }
}
