//! The `allocator` command.

use std::process::ExitCode;

use allocator::codes::CodesArgs;
use allocator::import::{self, ImportArgs, ImportError, RetryPolicy};
use allocator::load::{self, LoadArgs};
use allocator::run::{self, RunConfig};
use clap::{Parser, Subcommand};
use processor::cli::OperatorCommand;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::{process, shutdown, telemetry};

/// Tax Budget Allocator: run the services, import submissions, and operate a deployment
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all services in one process (default: http://127.0.0.1:8000 with data in ./data)
    Run(ConfigArgs),
    Import(ImportArgs),
    Load(LoadArgs),
    Codes(CodesArgs),
    #[command(flatten)]
    Operator(OperatorCommand),
    /// Print the settings of all processes as a Markdown table
    Config,
    /// Print the API as an OpenAPI document
    Openapi,
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
        Command::Load(args) => load(&args).await,
        Command::Codes(args) => process::exit_code("allocator codes", codes(&args).await),
        Command::Operator(command) => match RunConfig::load(command.config()) {
            Ok(config) => command.run(&config.storage).await,
            Err(faults) => process::exit_code("allocator", Err(anyhow::Error::from(faults))),
        },
        Command::Config => {
            console::out(&run::configuration_reference());
            ExitCode::SUCCESS
        }
        Command::Openapi => match allocator::openapi::document() {
            Ok(document) => {
                console::out(&document);
                ExitCode::SUCCESS
            }
            Err(error) => process::exit_code("allocator openapi", Err(anyhow::Error::from(error))),
        },
    }
}

async fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    Ok(run::run(&RunConfig::load(args)?).await?)
}

async fn codes(args: &CodesArgs) -> anyhow::Result<()> {
    let config = RunConfig::load(args.config())?;
    Ok(args.run(&config.storage).await?)
}

async fn load(args: &LoadArgs) -> ExitCode {
    match load::load(args, shutdown::listen()).await {
        Ok(verdict) => {
            console::out(&format!("{verdict}\n"));
            if verdict.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => process::exit_code("allocator load", Err(anyhow::Error::from(error))),
    }
}

async fn import(args: &ImportArgs) -> ExitCode {
    let stop = shutdown::listen();
    match import::import(args, RetryPolicy::default(), stop).await {
        Ok(counts) if counts.rejected == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            console::err(&format!("allocator import: {error}\n"));
            // The exit code that a shell reports for an interrupted process.
            if matches!(error, ImportError::Stopped) {
                ExitCode::from(130)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
