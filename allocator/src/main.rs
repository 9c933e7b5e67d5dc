//! The `allocator` command.

use std::process::ExitCode;

use allocator::import::{self, ImportArgs, ImportError, RetryPolicy};
use allocator::run::{self, RunConfig};
use clap::{Parser, Subcommand};
use processor::archive::{ArchiveArgs, archive_command};
use processor::audit::{AuditArgs, audit_command};
use processor::dead_letters::{DeadLettersArgs, dead_letters_command};
use processor::export::{ExportArgs, export_command};
use processor::jobs::{JobsArgs, jobs_command};
use processor::rebuild::{GenerationsArgs, RebuildArgs, generations_command, rebuild_command};
use runtime::config::{ConfigArgs, ConfigFaults};
use runtime::console;
use runtime::{process, shutdown, telemetry};

/// The Tax Budget Allocator.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs everything in one process: on http://127.0.0.1:8000, with its data in ./data, unless configured otherwise.
    Run(ConfigArgs),
    Import(ImportArgs),
    Archive(ArchiveArgs),
    Audit(AuditArgs),
    DeadLetters(DeadLettersArgs),
    Export(ExportArgs),
    Rebuild(RebuildArgs),
    Generations(GenerationsArgs),
    Jobs(JobsArgs),
    /// Prints the settings of all processes, as a Markdown table.
    Config,
}

fn main() -> ExitCode {
    process::run(command())
}

async fn command() -> ExitCode {
    let command = Cli::parse().command;
    if !matches!(command, Command::Run(_)) {
        telemetry::init_for_command();
    }
    match command {
        Command::Run(args) => process::exit_code("allocator run", run(&args).await),
        Command::Import(args) => import(&args).await,
        Command::Archive(args) => match RunConfig::load(&args.config) {
            Ok(config) => archive_command(&args, &config.storage, shutdown::listen()).await,
            Err(faults) => wrong(faults),
        },
        Command::Audit(args) => match RunConfig::load(&args.config) {
            Ok(config) => audit_command(&args, &config.storage, shutdown::listen()).await,
            Err(faults) => wrong(faults),
        },
        Command::DeadLetters(args) => match RunConfig::load(args.config()) {
            Ok(config) => dead_letters_command(&args, &config.storage).await,
            Err(faults) => wrong(faults),
        },
        Command::Export(args) => match RunConfig::load(&args.config) {
            Ok(config) => export_command(&args, &config.storage, shutdown::listen()).await,
            Err(faults) => wrong(faults),
        },
        Command::Rebuild(args) => match RunConfig::load(&args.config) {
            Ok(config) => rebuild_command(&args, &config.storage, shutdown::listen()).await,
            Err(faults) => wrong(faults),
        },
        Command::Generations(args) => match RunConfig::load(args.config()) {
            Ok(config) => generations_command(&args, &config.storage).await,
            Err(faults) => wrong(faults),
        },
        Command::Jobs(args) => match RunConfig::load(args.config()) {
            Ok(config) => jobs_command(&args, &config.storage, shutdown::listen()).await,
            Err(faults) => wrong(faults),
        },
        Command::Config => {
            console::out(&run::configuration_reference());
            ExitCode::SUCCESS
        }
    }
}

async fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    Ok(run::run(&RunConfig::load(args)?).await?)
}

async fn import(args: &ImportArgs) -> ExitCode {
    let stop = shutdown::listen();
    match import::import(args, RetryPolicy::default(), stop).await {
        Ok(counts) if counts.refused == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            console::err(&format!("allocator import: {error}\n"));
            // What a shell reports for a process that was interrupted.
            if matches!(error, ImportError::Stopped) {
                ExitCode::from(130)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Wrong settings.
fn wrong(faults: ConfigFaults) -> ExitCode {
    process::exit_code("allocator", Err(anyhow::Error::from(faults)))
}
