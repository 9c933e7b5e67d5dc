//! The steps of the drill, in their order.

use crate::chaos::fault::Kind;
use Kind::{Api, Ingest, Processor};
use Release::{Current, Previous};

/// A build of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The release before this one.
    Previous,
    /// The sources of this drill.
    Current,
}

/// A step of the drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Each service of a kind is terminated and started as another release, one after the other.
    Roll(Kind, Release),
    /// A rebuild is begun as a job, all processors are terminated while it runs, and those of another release finish
    /// it.
    RebuildAcross(Release),
    /// A budget's rules are changed at each ingest, and every API shows them.
    ChangeRules,
    /// A release after this one writes a definition with a member that neither release knows: both use what they
    /// understand, and neither replaces it.
    ExtendDefinition,
    /// A current ingest deletes a budget.
    DeleteBudget,
    /// Current APIs have the deleted budget no longer, and previous ones say that they cannot read it.
    CheckDeletedBudget,
    /// A current ingest defines the deleted budget again, and every service has it.
    DefineDeletedBudget,
    /// People who have never submitted withdraw, with and without an id of their own.
    WithdrawStrangers,
    /// A release after this one has migrated the store: a service of either release refuses to start, with the reason.
    RefuseMigratedStore(Kind),
}

/// All steps. Each way back is one that a deployment may take: `docs/operations/deploy.md` names them.
pub const STEPS: &[Step] = &[
    Step::ChangeRules,
    Step::WithdrawStrangers,
    // Forward: what current processors and APIs write, previous ones read.
    Step::Roll(Processor, Current),
    // What one release records of a rebuild, the other one goes on from.
    Step::RebuildAcross(Previous),
    Step::RebuildAcross(Current),
    Step::ExtendDefinition,
    Step::WithdrawStrangers,
    Step::Roll(Api, Current),
    Step::ChangeRules,
    Step::Roll(Ingest, Current),
    Step::ChangeRules,
    Step::WithdrawStrangers,
    Step::DeleteBudget,
    Step::CheckDeletedBudget,
    // Back: previous services start on what current ones have written.
    Step::Roll(Ingest, Previous),
    Step::ChangeRules,
    Step::WithdrawStrangers,
    Step::Roll(Api, Previous),
    Step::CheckDeletedBudget,
    Step::Roll(Processor, Previous),
    Step::ChangeRules,
    Step::WithdrawStrangers,
    // Forward again, to what previous services have written.
    Step::Roll(Processor, Current),
    Step::Roll(Api, Current),
    Step::ChangeRules,
    Step::Roll(Ingest, Current),
    Step::DefineDeletedBudget,
    Step::ChangeRules,
    // No way back, and no restart, of a release that does not know the store's schema.
    Step::RefuseMigratedStore(Processor),
    Step::RefuseMigratedStore(Api),
];
