//! The generation registry: which generation is active, building, previous or retired.
//!
//! The registry is one row of the store. A pure function derives the next registry from the
//! current one, and one conditional write replaces the row. The stored type is
//! [`schemas::GenerationRegistry`]; the state machine is in `transitions`.
//!
//! | file | owns |
//! |---|---|
//! | `transitions` | the state machine: which registry may follow which |
//! | `cache_term` | whether the cache has totals of a later term |
//! | `known_partitions` | whether the row is older than the rest of the store |
//! | `update` | the conditional write of the row |
//! | `fold_version` | raising the version of the fold that the generations need |
//! | `retired` | deleting the data of retired generations |
//! | `role_ages` | how long generations have been building, or retired and not deleted |
//! | `watch` | polling the row for one process |
//! | `active_log` | checks of the active generation's log against configuration |

mod active_log;
mod cache_term;
mod fold_version;
mod known_partitions;
mod retired;
mod role_ages;
#[cfg(test)]
mod tests;
mod transitions;
mod update;
mod watch;

pub use active_log::{active_log, check_configured_log, require_active_log};
pub use cache_term::watch_cache_term;
pub use fold_version::{FoldVersionError, FoldVersionGate, check_fold_version};
pub use known_partitions::check_known_partitions;
pub use retired::delete_retired;
pub(crate) use role_ages::RoleAges;
pub use transitions::{
    TransitionRefused, begin, begin_for_job, begin_on_new_log, cancel, cancel_on_new_log,
    raise_fold_version, remove_retired, retire, roll_back, seal, switch_active, switch_to_new_log,
    unseal,
};
pub use update::{RegistryUpdateError, load_or_create, update_registry};
pub use watch::watch_registry;
