//! The rows in Cassandra or ScyllaDB and the keys in Redis, as plain clients see them.

mod keys;
mod tables;

pub use keys::Keys;
pub use tables::{StoredPartition, Tables, drop_keyspaces};
