//! Tests of the contract in `docs/http.md`; each runs on the embedded default and on real servers.

mod administration;
mod definitions;
mod history;
mod identities;
mod pages;
mod people_cap;
mod publish_step;
mod reads;
mod refusals;
mod surroundings;
mod writes;

use anyhow::Result;
use e2e::embedded::Embedded;
use e2e::stack::{Stack, StackBuilder};
use tokio::sync::OnceCell;

/// Generates two tests of each function: one on the embedded default, one on real servers.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $test() {
                e2e::scenario::scenario(async || super::$test(&crate::embedded().await?.system).await);
            })*
        }
        mod real_servers {
            $(#[test] fn $test() {
                e2e::scenario::scenario(async || super::$test(&crate::servers().await?.system).await);
            })*
        }
    };
}
use on_both;

async fn embedded() -> Result<&'static Embedded> {
    static EMBEDDED: OnceCell<Embedded> = OnceCell::const_new();
    EMBEDDED.get_or_try_init(Embedded::start).await
}

async fn servers() -> Result<&'static Stack> {
    static STACK: OnceCell<Stack> = OnceCell::const_new();
    let builder = StackBuilder { ingests: 2, apis: 2, ..Stack::builder() };
    STACK.get_or_try_init(|| builder.start()).await
}

/// Returns a budget id that no other test uses.
fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
