//! The flags that every process takes for its settings.

use std::path::PathBuf;

/// `--config FILE` and `--set section.key=value`, for a process's own `clap` parser to flatten.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The settings file [default: ./allocator.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// One setting, over the file and the environment; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}
