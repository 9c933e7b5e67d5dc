//! The processor: folds the log into totals.

use std::process::ExitCode;

use clap::Parser;
use processor::{Processor, ProcessorConfig, ProcessorParts};
use runtime::config::ConfigArgs;
use runtime::http;
use runtime::process::{self, Process};
use storage::opening::until_there;
use storage::service_config::ServiceConfig;
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "processor";

/// Folds the log of submissions into totals.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(SERVICE, run(&Args::parse()).await)
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = ServiceConfig::load(&args.config, ProcessorConfig::read)?;
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
        let log = until_there(async || config.storage.open_log().await).await?;
        let parts = ProcessorParts {
            source: log.source,
            topic: config.storage.topic().to_owned(),
            dead_letters: log.dead_letters,
            store: until_there(async || config.storage.open_store().await).await?,
            cache: config.storage.open_cache().await,
            definitions: config.storage.open_definitions()?,
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
