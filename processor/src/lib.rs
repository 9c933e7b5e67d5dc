//! The processor service: wires engine, generations and operations into one process and one command line.
//!
//! | module | owns |
//! |---|---|
//! | `service` | the running process: wiring and shutdown |
//! | `component` | what runs in the background: a panic ends the process |
//! | `source_loop` | the log source's thread, which rejoins the consumer group |
//! | `first_registry` | reading or creating the generation registry at startup |
//! | `start_error` | why the processor does not start |
//! | [`config`] | the processor's settings |
//! | [`cli`] | the operators' commands, of this binary and of `allocator` |

pub mod cli;
mod component;
pub mod config;
mod first_registry;
mod service;
mod source_loop;
mod start_error;

pub use component::ProcessorFailed;
pub use config::ProcessorConfig;
pub use first_registry::first_registry;
pub use service::{Processor, ProcessorDeps};
pub use start_error::StartError;
