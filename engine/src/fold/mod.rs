//! The fold: how one record changes a partition's state. Pure: integers only, no clock, no configuration, no I/O, and
//! no order that depends on a hash.
//!
//! - A person's newest submission wins: the old shares are subtracted and the new ones added in one step.
//! - A withdrawal subtracts the person's shares. The withdrawal of a person who has never submitted leaves no row,
//!   unless its submission id has to be recognised again.
//! - A submission whose id is among the latest ids of its person changes nothing.
//! - A submission behind the close marker of its budget changes nothing, until a marker reopens the budget.
//! - A person who is annulled does not count until restored. What the person submits meanwhile is kept. Annulments and
//!   restorations apply behind a close marker, too.
//! - If the records of a budget have a publish step, the shown totals stay the same until as many people have changed.
//!   Closing shows the exact totals.
//!
//! | file | owns |
//! |---|---|
//! | `partition_state` | one partition: folding records, and what has changed since the last commit |
//! | `outcome` | what folding a record may do |
//! | `restore` | the state from stored totals and rows, and the check that they belong together |
//! | `row_scan` | the rows of people who have changed, a part at a time |
//! | `budget` | one budget in one partition |
//! | `history` | the history points that records complete |
//! | `people` | every person's current shares, in compact memory |
//! | `packed` | the bit layout of an offset and shares |
//! | `shares` | one person's shares while a record is folded |
//! | `sums` | what one person adds to a budget's totals, and replacing it |

mod budget;
mod history;
mod outcome;
mod packed;
mod partition_state;
mod people;
mod restore;
mod row_scan;
mod shares;
mod sums;

pub use history::HistoryFloor;
pub use outcome::{DeadLetterReason, FoldMode, FoldOutcome, InconsistentState};
pub use partition_state::PartitionState;
pub use restore::PeopleOrigin;
pub use row_scan::RowScan;

#[cfg(test)]
mod annulment_tests;
#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod publish_step_tests;
#[cfg(test)]
mod tests;
