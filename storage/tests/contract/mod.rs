//! Contract tests that every adapter of a trait must pass: one module per trait, one function per property.
//!
//! Each module has a macro that generates a test of each property for one adapter. `embedded.rs` and `real.rs` only
//! create the adapters.

pub mod build;
pub mod cache;
pub mod definitions;
pub mod idempotency;
pub mod jobs;
pub mod limits;
pub mod log;
pub mod one_time_codes;
pub mod store;
pub mod wait;

/// Generates one test per property. `$fixture` is evaluated for each test.
macro_rules! properties {
    ($suite:ident, $fixture:expr; $($property:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $property() {
                let fixture = $fixture.await;
                crate::contract::$suite::$property(&fixture).await;
            }
        )+
    };
}
pub(crate) use properties;
