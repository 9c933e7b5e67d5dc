//! The processor's binary: the service, and the operators' commands.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use processor::cli::{OperatorCommand, RepartitionArgs, repartition};
use processor::{Processor, ProcessorConfig, ProcessorDeps, first_registry};
use runtime::client::TrustedProxies;
use runtime::config::{ConfigArgs, ServiceConfig};
use runtime::process::{self, Process};
use runtime::{http, telemetry};
use storage::config::StorageConfig;
use storage::open_error::retry_until_available;
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "processor";

/// Fold submissions from the log into totals, or run an operator command
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
    #[command(flatten)]
    Operator(OperatorCommand),
    Repartition(RepartitionArgs),
}

impl Command {
    fn config(&self) -> &ConfigArgs {
        match self {
            Self::Operator(command) => command.config(),
            Self::Repartition(args) => &args.config,
        }
    }

    async fn run(&self, storage: &StorageConfig) -> ExitCode {
        match self {
            Self::Operator(command) => command.run(storage).await,
            Self::Repartition(args) => repartition(args, storage).await,
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
        Some(command) => match ServiceConfig::load(
            command.config(),
            StorageConfig::read_shared,
            ProcessorConfig::read,
        ) {
            Ok(config) => {
                telemetry::init_for_command();
                command.run(&config.storage).await
            }
            Err(faults) => process::exit_code(SERVICE, Err(anyhow::Error::from(faults))),
        },
    }
}

async fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = ServiceConfig::load(args, StorageConfig::read_shared, ProcessorConfig::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.listen)?;
    let limits = config.process.http.clone();
    let router = http::router(SERVICE, axum::Router::new(), metrics, health, &limits);
    let stop_http = CancellationToken::new();
    let server = {
        let (metrics, stop) = (metrics.clone(), stop_http.clone());
        let proxies = TrustedProxies::default();
        tokio::spawn(async move {
            http::serve(listener, router, &limits, &proxies, &metrics, stop).await
        })
    };

    let start = async {
        let store = retry_until_available(async || config.storage.open_store().await).await?;
        let first_log = config.storage.first_log();
        retry_until_available(async || config.storage.ensure_control_topic().await).await?;
        let control = config.storage.open_control_topic()?;
        // The registry names the active log; if the store lost it, the control topic does.
        let registry =
            first_registry(store.store.as_ref(), control.active_log.as_ref(), &first_log).await?;
        let log = registry.active.log;
        let log = retry_until_available(async || {
            config.storage.open_log(&log, control.active_log.as_ref()).await
        })
        .await?;
        let deps = ProcessorDeps {
            source: log.source,
            logs: Arc::new(config.storage.clone()),
            first_log,
            dead_letters: log.dead_letters,
            dead_letter_journal: config.storage.open_dead_letter_journal()?,
            writer: log.writer,
            archive_dir: config.storage.archive_dir().map(Path::to_owned),
            store: store.store,
            jobs: store.jobs,
            cache: config.storage.open_cache().await,
            control,
            exports: config.storage.exports(),
            signals: config.storage.signal_reader(),
        };
        anyhow::Ok(Processor::start(&config.own, deps, metrics, health, stop.clone()).await?)
    };
    // Unavailable backends must not delay a stop during startup.
    let mut ended = Ok(());
    if let Some(processor) = stop.run_until_cancelled(start).await.transpose()? {
        tracing::info!(listen = %config.own.listen, "processor started");
        processor.stopping().cancelled().await;
        stop.cancel();
        tracing::info!("processor stopping, committing folded records");
        ended = processor.stopped().await;
    }
    // Health and metrics are served until the end.
    stop_http.cancel();
    server.await??;
    Ok(ended?)
}
