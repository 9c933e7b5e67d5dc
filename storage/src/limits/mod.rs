//! Counters of rate limits that several processes share. `runtime::limits` owns the decision and the counters in
//! memory; `schemas::redis` owns the keys and the script.

mod combined_calls;
pub mod redis;
