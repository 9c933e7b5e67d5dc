//! Replaying and dropping dead letters: records that the fold rejected.
//!
//! The dead letter journal is append-only; the state of a dead letter follows from its entries (see
//! [`storage::log::dead_letters`]). A dead letter is identified by its record's address in the log, which still has the
//! bytes.

mod dead_letter_log;
mod drop;
mod replay;
mod replay_refusal;

pub use dead_letter_log::{DeadLetterLog, JournalError};
pub use drop::{DropRefused, drop_dead_letters};
pub use replay::{
    Prepared, ReadyReplay, ReplayAttempt, ReplayDeps, ReplayError, UnfinishedReplay, append,
    prepare, replay,
};
pub use replay_refusal::ReplayRefusal;
