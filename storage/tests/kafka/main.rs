//! Properties of the Kafka adapters beyond the shared contracts. Needs a real Kafka: `local/up servers`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod control_topic;
mod lost_control_topic;
mod rebalances;
mod sealing;
mod support;
mod topics;
mod unreachable;
