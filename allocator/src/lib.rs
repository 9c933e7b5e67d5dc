//! The product in one binary: everything in one process, and the tools that a person runs.
//!
//! | module | owns |
//! |---|---|
//! | [`run`] | ingest, processor and api in one process |
//! | [`import`](mod@import) | the submissions of a file, to a running allocator |
//!
//! What the services do is theirs: nothing here knows how a submission is parsed, counted or read.

pub mod import;
pub mod run;
