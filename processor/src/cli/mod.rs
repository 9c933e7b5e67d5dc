//! The operators' command line: one enum of commands for both binaries, `processor` and `allocator`.
//!
//! Each file has one command: its arguments, its progress, what it prints and its exit code. The work itself is done by
//! the crates below, `generations`, `operations` and `fraud`.

mod annulments;
mod archive;
mod audit;
mod dead_letters;
mod definition;
mod export;
mod forget;
mod generations;
mod job_text;
mod job_watch;
mod jobs;
mod progress_display;
mod rebuild;
mod repartition;
mod signals;

use std::fmt::{Display, Write as _};
use std::process::ExitCode;

use clap::Subcommand;
use runtime::config::ConfigArgs;
use runtime::shutdown;
use storage::config::StorageConfig;

pub use repartition::RepartitionArgs;

use repartition::repartition_command;

/// Exit code: done, and differences were found.
const EXIT_DIFFERENT: u8 = 1;
/// Exit code: not done, or not all of it.
const EXIT_FAILED: u8 = 2;
/// Exit code: interrupted; what a shell reports for SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
/// Lines of differences or faults that a command prints before it only counts.
const MAX_PRINTED_LINES: usize = 100;

/// An operator's command, of either binary.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of a variant is the doc of its arguments")]
pub enum OperatorCommand {
    Annulments(annulments::AnnulmentsArgs),
    Archive(archive::ArchiveArgs),
    Audit(audit::AuditArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Export(export::ExportArgs),
    Forget(forget::ForgetArgs),
    Rebuild(rebuild::RebuildArgs),
    Generations(generations::GenerationsArgs),
    Jobs(jobs::JobsArgs),
    Signals(signals::SignalsArgs),
}

impl OperatorCommand {
    /// Returns the arguments that name the configuration.
    pub fn config(&self) -> &ConfigArgs {
        match self {
            Self::Annulments(args) => args.config(),
            Self::Archive(args) => &args.config,
            Self::Audit(args) => &args.config,
            Self::DeadLetters(args) => args.config(),
            Self::Export(args) => &args.config,
            Self::Forget(args) => &args.config,
            Self::Rebuild(args) => &args.config,
            Self::Generations(args) => args.config(),
            Self::Jobs(args) => args.config(),
            Self::Signals(args) => &args.config,
        }
    }

    /// Runs the command on what `storage` configures, prints its result, and returns its exit code.
    pub async fn run(&self, storage: &StorageConfig) -> ExitCode {
        match self {
            Self::Annulments(args) => {
                annulments::annulments_command(args, storage, shutdown::listen()).await
            }
            Self::Archive(args) => {
                archive::archive_command(args, storage, shutdown::listen()).await
            }
            Self::Audit(args) => audit::audit_command(args, storage, shutdown::listen()).await,
            Self::DeadLetters(args) => dead_letters::dead_letters_command(args, storage).await,
            Self::Export(args) => export::export_command(args, storage, shutdown::listen()).await,
            Self::Forget(args) => forget::forget_command(args, storage).await,
            Self::Rebuild(args) => {
                rebuild::rebuild_command(args, storage, shutdown::listen()).await
            }
            Self::Generations(args) => generations::generations_command(args, storage).await,
            Self::Jobs(args) => jobs::jobs_command(args, storage, shutdown::listen()).await,
            Self::Signals(args) => {
                signals::signals_command(args, storage, shutdown::listen()).await
            }
        }
    }
}

/// Appends the first [`MAX_PRINTED_LINES`] of `total` lines, and how many more there are.
fn push_first_lines(text: &mut String, lines: impl Iterator<Item: Display>, total: u64) {
    let mut printed = 0;
    for line in lines.take(MAX_PRINTED_LINES) {
        let _ = writeln!(text, "{line}");
        printed += 1;
    }
    if let more @ 1.. = total.saturating_sub(printed) {
        let _ = writeln!(text, "and {more} more");
    }
}

/// Moves the deployment to a log with another partition count, and returns the exit code.
pub async fn repartition(args: &RepartitionArgs, storage: &StorageConfig) -> ExitCode {
    repartition_command(args, storage, shutdown::listen()).await
}
