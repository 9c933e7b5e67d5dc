//! Rebuild jobs build one new generation whatever happens to their workers, their generation and their log.

mod interruptions;
mod log_beginning;
mod other_commands;
mod rebuild_world;
