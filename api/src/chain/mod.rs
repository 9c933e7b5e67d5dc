//! The chain's decisions, without I/O: which tier comes next, whether an answer may replace the one in memory, and
//! for how long that one is trusted.

mod forward;
mod freshness;
mod order;

pub use forward::{Verdict, judge};
pub use freshness::{Micros, News, is_fresh};
pub use order::{Held, Tier, is_worth_asking};
