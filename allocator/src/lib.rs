//! The product in one binary: all services in one process, and the commands that a person runs.
//!
//! | module | owns |
//! |---|---|
//! | [`run`] | ingest, processor and api in one process |
//! | [`import`](mod@import) | sending the submissions of a file to a running allocator |
//! | [`load`](mod@load) | submitting at a fixed rate, and checking the aggregate |
//! | [`codes`] | printing personal codes |
//! | [`openapi`] | the API as an OpenAPI document |
//!
//! How a submission is parsed, folded or read is up to the services and not known here.

pub mod codes;
pub mod import;
pub mod load;
pub mod openapi;
pub mod run;
