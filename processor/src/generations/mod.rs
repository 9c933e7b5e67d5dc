//! Which generation is derived, which answers, and how one follows the other: each step is a new roster, made from the
//! one before by a pure function and put in its place by one conditional write.
//!
//! ```text
//! begin ──> building ──flip──> current ──flip──> previous ──retire──> retired ──delete──> gone
//!              └───────cancel──────────────────────────────────────────^
//!                                  <──roll back──
//! ```

mod change;
mod steps;
mod watch;

pub use change::{ChangeError, begin_first, change};
pub use steps::{Refused, begin, begin_for, cancel, deleted, flip, retire, roll_back};
pub(crate) use watch::watch_roster;

use schemas::{PartitionCount, Roster};

/// The roster, whose current generation answers the public and has to be of this log.
///
/// # Errors
/// When there is none, or it is of another topic or partition count: what is wrong.
pub(crate) fn of_log(
    roster: Option<Roster>,
    topic: &str,
    partitions: PartitionCount,
) -> Result<Roster, String> {
    let roster = roster.ok_or("there is nothing yet: no processor ever started")?;
    let current = &roster.current;
    if current.topic != topic || current.partitions != partitions {
        return Err(format!(
            "the current generation {} is of topic `{}` with {} partitions; configured are `{topic}` with {}",
            current.generation,
            current.topic,
            current.partitions.get(),
            partitions.get(),
        ));
    }
    Ok(roster)
}
