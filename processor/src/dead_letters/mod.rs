//! What operators do about records that the fold could not take: look at them, append them once more, or drop them.
//!
//! The book of dead letters is only ever added to; what has become of a letter follows from its entries (see
//! [`storage::log::letters`]). A letter is named by the place of its record in the log, where its bytes still are.

mod command;
mod discard;
mod letter_log;
mod replay;

pub use command::{DeadLettersArgs, dead_letters_command};
pub use discard::{Kept, discard};
pub use letter_log::{BookError, LetterLog};
pub use replay::{
    Attempt, Prepared, Ready, Refusal, ReplayError, ReplayParts, Unfinished, append, prepare,
    replay,
};
