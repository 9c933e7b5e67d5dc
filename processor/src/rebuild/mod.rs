//! Rebuilding: a new generation derives everything from the log's first record on, beside the one that answers, is
//! compared with it at equal positions, and answers from then on.
//!
//! The processors do the folding and the comparing (see `beside`), and whoever asked for it only watches: it may go away
//! and come back. What is its own is the last step, the flip, once every partition has come as far as the log reached
//! when the rebuild was asked for, and has been compared.

mod command;
mod run;
mod watch;

pub use command::{GenerationsArgs, RebuildArgs, generations_command, rebuild_command};
pub use run::{RebuildError, Rebuilt, delete_retired, rebuild};
pub(crate) use run::{compared, goals};
pub(crate) use watch::trouble;
pub use watch::{Look, Stage};
