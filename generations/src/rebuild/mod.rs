//! Rebuild: a new generation derived from the first record of the log, compared, and switched to.
//!
//! Processors fold and compare the new generation as a shadow generation ([`crate::shadow`]). A
//! rebuild job drives it: the job begins the generation, waits here until every partition has
//! reached the position at which the log ended and has been compared with the active generation,
//! and then switches. The job itself is in `operations`.
//!
//! | file | owns |
//! |---|---|
//! | `run` | target positions, and waiting for the comparison |
//! | `progress` | progress and readiness, computed from the partitions' reports |

mod progress;
mod run;

pub use progress::{RebuildProgress, RebuildStage, reasons_not_ready, stall_reasons};
pub use run::{RebuildError, is_joinable, target_positions, wait_until_compared};
