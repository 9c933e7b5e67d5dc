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
