//! The arguments of `allocator import`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemas::BudgetId;

use super::entries::AnonymousIds;
use super::formats::Format;
use super::formats::pabulib::Grouping;

/// Send the submissions of a file to a running allocator
///
/// Importing the same file again is safe: nobody is counted twice.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// Pabulib file of cumulative votes (.pb), JSON lines of submissions (.ndjson), or a table (.csv) with the columns
    /// person, optionally submission_id, and a percentage for each category
    pub file: PathBuf,

    /// Address of the allocator
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,

    /// Budget id. Optional for a .pb file, which suggests one such as katowice-2022 and whose budget is created if
    /// absent
    #[arg(long, value_parser = BudgetId::parse)]
    pub budget: Option<BudgetId>,

    /// Source of the budget's categories (.pb only)
    #[arg(long, value_enum, default_value_t = Grouping::Category)]
    pub by: Grouping,

    /// Format of the file; default: by its extension
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// Maximum number of concurrent batch requests
    #[arg(long, value_name = "N", default_value = "8")]
    pub concurrency: NonZeroUsize,

    /// File with a token of the role `submitter`, or of `admin` to create the budget; default: data/admin.token, if
    /// that exists and the allocator is on this machine
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Source of the ids of entries without person and submission id; importing a file again must use the same
    #[arg(long, value_enum, default_value_t = AnonymousIds::File)]
    pub anonymous_ids: AnonymousIds,

    /// Import a .pb file that has other numbers of projects or votes than its META declares
    #[arg(long)]
    pub accept_wrong_counts: bool,

    /// Read the file and print the totals without sending anything
    #[arg(long)]
    pub dry_run: bool,
}
