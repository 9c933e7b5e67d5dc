//! Reads a text file as lines and records, and reports their faults. What they mean is up to `formats`.

mod fault;
mod lines;
mod quotes;
mod records;

pub use fault::{Entry, FileFault, RejectedEntry, quoted};
pub use lines::{FileIdentity, FileReadError, Line, LineNumber, Lines};
pub use quotes::Quoting;
pub use records::{FileRecord, FileRecords};
