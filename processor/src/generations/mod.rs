//! Which generation is derived, which answers, and how one follows the other: each step is a new roster, made from the
//! one before by a pure function and put in its place by one conditional write.
//!
//! ```text
//! begin ──> building ──flip──> current ──flip──> previous ──retire──> retired ──delete──> gone
//!              └───────cancel──────────────────────────────────────────^
//!                                  <──roll back──
//! ```
//!
//! One that derives from another log than the one that answers is ended in other ways, as that one has to take no more
//! submissions before, and there is no way back:
//!
//! ```text
//! begin moved ──> building ──seal──> sealed ──flip moved──> current; the one that answered is retired
//!                    │                  └──unseal──> opening ──cancel moved──> retired
//!                    └──────────────cancel moved──────────────────────────────────^
//! ```

mod change;
mod steps;
mod watch;

pub use change::{ChangeError, begin_first, change};
pub use steps::{
    Refused, begin, begin_for, begin_moved, cancel, cancel_moved, deleted, flip, flip_moved,
    retire, roll_back, seal, unseal,
};
pub(crate) use watch::watch_roster;

use schemas::{GenerationRecord, LogNumber, LogRef, PartitionCount, Roster};
use storage::opening::OpenError;
use storage::store::{Store, StoreError};

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
    if current.log.topic != topic || current.log.partitions != partitions {
        return Err(format!(
            "the current generation {} is of topic `{}` with {} partitions by now, and not of `{topic}` with {}",
            current.generation,
            current.log.topic,
            current.log.partitions.get(),
            partitions.get(),
        ));
    }
    Ok(roster)
}

/// The log that answers now; `first` is what a new deployment would begin with.
///
/// # Errors
/// When there is none, the deployment began with another than is configured, or the store does not answer.
pub async fn current_log(store: &dyn Store, first: &LogRef) -> Result<LogRef, OpenError> {
    let wrong = |reason| OpenError::Wrong { place: "the log", reason };
    let roster = match store.roster().await {
        Ok(roster) => roster,
        Err(error) => {
            let (place, reason) = ("the store", error.to_string());
            return Err(match error {
                StoreError::Unavailable(_) => OpenError::Away { place, reason },
                StoreError::Corrupt(_) => OpenError::Wrong { place, reason },
            });
        }
    };
    let none = || wrong("there is nothing yet: no processor ever started".to_owned());
    let current = roster.ok_or_else(none)?.current;
    check_configured(&current, first).map_err(wrong)?;
    Ok(current.log)
}

/// Whether a generation may answer where `first` is configured as the log of a new deployment. Later logs are not configured.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_configured(current: &GenerationRecord, first: &LogRef) -> Result<(), String> {
    if current.log.number > LogNumber::FIRST || current.log == *first {
        return Ok(());
    }
    Err(format!(
        "the current generation {} is of topic `{}` with {} partitions; configured are `{}` with {} \
         (another partition count is for `processor repartition`)",
        current.generation,
        current.log.topic,
        current.log.partitions.get(),
        first.topic,
        first.partitions.get(),
    ))
}
