//! The contract of `docs/http.md`, on the embedded default and on real servers: the same tests on both.

mod administration;
mod definitions;
mod reads;
mod refusals;
mod surroundings;
mod writes;

use anyhow::Result;
use e2e::embedded::Embedded;
use e2e::stack::{Stack, StackBuilder};
use tokio::sync::OnceCell;

/// Makes two tests of each: one on the embedded default, one on real servers.
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
    let two_of_each_door = StackBuilder { ingests: 2, apis: 2, ..Stack::builder() };
    STACK.get_or_try_init(|| two_of_each_door.start()).await
}

/// A budget id that no other test has.
fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
