//! What the tests of an owner and those of the coordinator share. Neither needs all of it.
#![allow(dead_code)]

pub mod letters;
pub mod log;
pub mod logs;
pub mod store;
