//! What every adapter of a trait must hold, whatever is behind it: one module a trait, one function a property.
//!
//! Each module has a macro that makes a test of each of its properties for one adapter; `embedded.rs` and `real.rs`
//! only say how an adapter is made.

pub mod build;
pub mod cache;
pub mod definitions;
pub mod idempotency;
pub mod jobs;
pub mod log;
pub mod store;
pub mod wait;

/// One test for each property. `$fixture` is made anew for each.
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
