//! Repartition: moves the deployment to a new log with another partition count.
//!
//! Submissions continue meanwhile, except for a few seconds during the cutover.
//!
//! 1. A generation begins on a new log ([`begin_on_new_log`]) and the topic is created.
//! 2. `copy` copies every record partition by partition, which keeps the order of one person's
//!    submissions. Processors fold the copy as a shadow generation ([`crate::shadow`]) until both
//!    are nearly caught up.
//! 3. The old topic is sealed: its brokers reject every append from then on, including those of a
//!    paused ingest process. Ingest holds submissions briefly and then rejects them; none of them
//!    was acknowledged. The registry records the seal before it is applied.
//! 4. The rest is copied and folded, and `compare` compares both generations: totals,
//!    distributions, and record counts.
//! 5. One conditional write makes the new generation active and retires the old one. No rollback
//!    is possible, and none is needed: both are equal, and the old topic receives no more records.
//! 6. The active log is announced to every process that appends submissions.
//!
//! **The switch precedes the announcement.** If the log were announced first, submissions would go to
//! a log that is not active yet, and a cancelled repartition would lose them. If the process dies
//! between switch and announcement, [`ActiveLogAnnouncer`] in the processors announces the log from
//! the registry; until then submissions are rejected.
//!
//! **Cancelling** reverses the order: the registry records that the new generation never becomes
//! active, the old topic is unsealed, and the generation is retired. A late switch is refused.
//!
//! **A copy is never resumed.** A dead process cannot be told from a slow one, whose pending
//! appends would interleave with those of its successor. One process copies the whole log, and
//! every attempt uses a new topic.
//!
//! Records that the fold rejects by themselves are not copied: undecodable and misplaced ones, which
//! are dead letters.
//!
//! | file | owns |
//! |---|---|
//! | `run` | a repartition up to the cutover, and its cancellation on failure |
//! | `cutover` | the sealed last step: rest of the copy, comparison, switch, publication |
//! | `copy` | copying the records |
//! | `compare` | differences between the generations of the two logs |
//! | `cancel` | cancelling, and unsealing the old topic |
//! | `active_log_announcer` | announcing the active log by the registry |
//! | `progress`, `error`, `deps` | progress and outcome, errors, dependencies |
//!
//! [`begin_on_new_log`]: crate::registry::begin_on_new_log

mod active_log_announcer;
mod cancel;
mod compare;
mod copy;
mod cutover;
mod deps;
mod error;
mod progress;
mod run;

pub use active_log_announcer::ActiveLogAnnouncer;
pub use cancel::{CancelOutcome, cancel};
pub use deps::RepartitionDeps;
pub use error::RepartitionError;
pub use progress::{CutoverStats, RepartitionOutcome, RepartitionProgress, RepartitionStage};
pub use run::repartition;
