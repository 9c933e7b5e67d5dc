//! Plain clients of the tables in Cassandra or ScyllaDB and of the keys in Redis.

mod keys;
mod tables;

pub use keys::Keys;
pub use tables::{StoredPartition, Tables, drop_keyspaces};
