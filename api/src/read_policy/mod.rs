//! Pure decisions of the read path: which tier to query, which answer to keep, and how long to trust it.

mod freshness;
mod replacement;
mod term_grace;
mod tier_order;

pub use freshness::{Micros, UpdateFeed, is_fresh};
pub use replacement::{OfferVerdict, compare};
pub use term_grace::TermGrace;
pub use tier_order::{MemoryState, Tier, should_query};
