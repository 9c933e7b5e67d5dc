//! The arguments of `allocator load`.

use std::num::NonZeroU32;

use schemas::BudgetId;

/// Submit realistic ballots at a fixed rate, and check that the aggregate is exactly what was sent
///
/// Requests begin on schedule, also while earlier ones are slow. The check fails if somebody else submits to the same
/// budget meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// Address of the allocator
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,

    /// Budget id
    #[arg(long, value_parser = BudgetId::parse, default_value = "taxes")]
    pub budget: BudgetId,

    /// Submissions per second
    #[arg(long, value_name = "N", default_value = "20")]
    pub rate: NonZeroU32,

    /// Number of people; each run has people of its own
    #[arg(long, value_name = "N", default_value = "10000")]
    pub people: NonZeroU32,

    /// Duration in seconds; default: until Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<NonZeroU32>,

    /// Percent of the submissions that replace an earlier one of the same person
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub resubmit: u8,

    /// Percent of the submissions that withdraw an earlier one
    #[arg(long, value_name = "PERCENT", default_value = "2", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub withdraw: u8,

    /// Number of clients that read the aggregate ten times per second
    #[arg(long, value_name = "N", default_value = "0")]
    pub readers: u32,

    /// Number of open streams of the aggregate
    #[arg(long, value_name = "N", default_value = "0")]
    pub watchers: u32,

    /// Seed of people and ballots; default: random
    #[arg(long)]
    pub seed: Option<u64>,
}
