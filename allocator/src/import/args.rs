//! What `allocator import` is asked to do.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemas::BudgetId;

use super::formats::Format;
use super::formats::pabulib::Grouping;

/// Sends the submissions of a file to a running allocator. The same file may be imported again at any time: nobody
/// is counted twice.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// A Pabulib file of cumulative votes (.pb), submissions as JSON lines (.ndjson), or a table (.csv) with the
    /// columns person, maybe submission_id, and one of percentages for each category.
    pub file: PathBuf,

    /// Where the allocator is.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,

    /// The budget's id. A .pb file has one of its own, such as katowice-2022, and its budget is created if absent.
    #[arg(long, value_parser = BudgetId::parse)]
    pub budget: Option<BudgetId>,

    /// What of a .pb file becomes the budget's categories.
    #[arg(long, value_enum, default_value_t = Grouping::Category)]
    pub by: Grouping,

    /// How the file is written, if its name does not say.
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// How many batches are under way at once.
    #[arg(long, value_name = "N", default_value = "8")]
    pub concurrency: NonZeroUsize,

    /// A file with the token of an administrator of the role `admin`, for creating the budget.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Only read the file, and print what it would come to; send nothing.
    #[arg(long)]
    pub dry_run: bool,
}
