//! A file of submissions as text: lines, records, and what can be wrong with them. What they mean is not known here.

mod fault;
mod lines;
mod records;

pub use fault::{Entry, FileFault, Refusal, shown};
pub use lines::{FileIdentity, Line, Lines, ReadError};
pub use records::{Record, Records};
