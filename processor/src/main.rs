//! The processor: folds the log into totals.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use processor::archive::{ArchiveArgs, archive_command};
use processor::audit::{AuditArgs, audit_command};
use processor::dead_letters::{DeadLettersArgs, dead_letters_command};
use processor::export::{ExportArgs, export_command};
use processor::jobs::{JobsArgs, jobs_command};
use processor::rebuild::{GenerationsArgs, RebuildArgs, generations_command, rebuild_command};
use processor::repartition::{RepartitionArgs, repartition_command};
use processor::{Processor, ProcessorConfig, ProcessorParts, first_roster};
use runtime::config::ConfigArgs;
use runtime::process::{self, Process};
use runtime::{http, shutdown, telemetry};
use storage::config::StorageConfig;
use storage::opening::until_there;
use storage::service_config::ServiceConfig;
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "processor";

/// Folds the log of submissions into totals, unless a command says otherwise.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Archive(ArchiveArgs),
    Audit(AuditArgs),
    DeadLetters(DeadLettersArgs),
    Export(ExportArgs),
    Rebuild(RebuildArgs),
    Repartition(RepartitionArgs),
    Generations(GenerationsArgs),
    Jobs(JobsArgs),
}

impl Command {
    fn config(&self) -> &ConfigArgs {
        match self {
            Self::Archive(args) => &args.config,
            Self::Audit(args) => &args.config,
            Self::DeadLetters(args) => args.config(),
            Self::Export(args) => &args.config,
            Self::Rebuild(args) => &args.config,
            Self::Repartition(args) => &args.config,
            Self::Generations(args) => args.config(),
            Self::Jobs(args) => args.config(),
        }
    }

    async fn run(&self, storage: &StorageConfig) -> ExitCode {
        match self {
            Self::Archive(args) => archive_command(args, storage, shutdown::listen()).await,
            Self::Audit(args) => audit_command(args, storage, shutdown::listen()).await,
            Self::DeadLetters(args) => dead_letters_command(args, storage).await,
            Self::Export(args) => export_command(args, storage, shutdown::listen()).await,
            Self::Rebuild(args) => rebuild_command(args, storage, shutdown::listen()).await,
            Self::Repartition(args) => repartition_command(args, storage, shutdown::listen()).await,
            Self::Generations(args) => generations_command(args, storage).await,
            Self::Jobs(args) => jobs_command(args, storage, shutdown::listen()).await,
        }
    }
}

fn main() -> ExitCode {
    process::run(service_or_command())
}

async fn service_or_command() -> ExitCode {
    let args = Args::parse();
    match args.command {
        None => process::exit_code(SERVICE, run(&args.config).await),
        Some(command) => match ServiceConfig::load(command.config(), ProcessorConfig::read) {
            Ok(config) => {
                telemetry::init_for_command();
                command.run(&config.storage).await
            }
            Err(faults) => process::exit_code(SERVICE, Err(anyhow::Error::from(faults))),
        },
    }
}

async fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = ServiceConfig::load(args, ProcessorConfig::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.listen)?;
    let limits = config.process.http;
    let router = http::router(SERVICE, axum::Router::new(), metrics, health, &limits);
    let stop_http = CancellationToken::new();
    let server = {
        let (metrics, stop) = (metrics.clone(), stop_http.clone());
        tokio::spawn(async move { http::serve(listener, router, &limits, &metrics, stop).await })
    };

    let start = async {
        let store = until_there(async || config.storage.open_store().await).await?;
        let first_log = config.storage.first_log();
        until_there(async || config.storage.ensure_definitions().await).await?;
        let definitions = config.storage.open_definitions()?;
        // Which log there is by now, the store says; the definitions, if it has lost that.
        let roster = first_roster(store.store.as_ref(), definitions.as_ref(), &first_log).await?;
        let log = roster.current.log;
        let log =
            until_there(async || config.storage.open_log(&log, definitions.as_ref()).await).await?;
        let parts = ProcessorParts {
            source: log.source,
            logs: Arc::new(config.storage.clone()),
            first_log,
            dead_letters: log.dead_letters,
            letters: config.storage.open_letter_book()?,
            writer: log.writer,
            archive_dir: config.storage.archive_dir().map(Path::to_owned),
            store: store.store,
            jobs: store.jobs,
            cache: config.storage.open_cache().await,
            definitions,
            exports: config.storage.exports(),
        };
        anyhow::Ok(Processor::start(&config.own, parts, metrics, health, stop.clone()).await?)
    };
    // Servers that do not answer must not keep it from ending when it is told to.
    if let Some(processor) = stop.run_until_cancelled(start).await.transpose()? {
        tracing::info!(listen = %config.own.listen, "processor started");
        stop.cancelled().await;
        tracing::info!("stopping: the last commits are made");
        processor.stopped().await;
    }
    // Health and metrics answer until the very end.
    stop_http.cancel();
    server.await??;
    Ok(())
}
