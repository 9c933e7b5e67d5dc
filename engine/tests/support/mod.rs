//! Fakes shared by the owner tests and the coordinator tests. Neither uses all of them.
#![allow(dead_code)]

pub mod dead_letters;
pub mod log;
pub mod store;
