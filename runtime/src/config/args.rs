//! The command line flags for settings, shared by every process.

use std::path::PathBuf;

/// `--config FILE` and `--set section.key=value`, to flatten into the process's `clap` parser.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Read settings from this file [default: ./allocator.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key, overriding the file and the environment; repeatable.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}
