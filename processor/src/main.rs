//! The processor: folds the log into totals.

use anyhow::Context;
use clap::Parser;
use processor::{Processor, ProcessorConfig, ProcessorParts};
use runtime::config::{ConfigArgs, Settings};
use runtime::health::{Health, HealthConfig};
use runtime::http::HttpConfig;
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use runtime::telemetry::TelemetryConfig;
use storage::config::StorageConfig;

/// Folds the log of submissions into totals.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::load(&Args::parse().config)?;
    let mut reader = settings.reader();
    let telemetry = TelemetryConfig::read(&mut reader);
    let http = HttpConfig::read(&mut reader);
    let health = HealthConfig::read(&mut reader);
    let storage = StorageConfig::read(&mut reader);
    let config = ProcessorConfig::read(&mut reader);
    if storage.as_ref().is_some_and(|storage| !storage.is_shared()) {
        reader.fault("log.kind", storage::config::NEEDS_SHARED.to_owned());
    }
    for foreign in ["ingest", "api", "admin", "allocator"] {
        reader.ignore_section(foreign);
    }
    reader.finish(&[
        TelemetryConfig::KEYS,
        HttpConfig::KEYS,
        HealthConfig::KEYS,
        storage::config::KEYS,
        processor::config::KEYS,
    ])?;
    let complete = "a setting is missing that no fault was noted for";
    let (telemetry, http) = (telemetry.context(complete)?, http.context(complete)?);
    let (storage, config) = (storage.context(complete)?, config.context(complete)?);
    let health = Health::new(&health.context(complete)?);

    let guard = runtime::telemetry::init(&telemetry);
    let metrics = Metrics::new("processor");
    guard.expose(&metrics)?;
    let shutdown = Shutdown::listen();
    health.drain_with(shutdown.token());
    let listener = runtime::http::bind(config.listen)?;
    let router = runtime::http::router("processor", axum::Router::new(), &metrics, &health, &http);
    let stop_http = tokio_util::sync::CancellationToken::new();
    let server = {
        let (metrics, stop) = (metrics.clone(), stop_http.clone());
        tokio::spawn(
            async move { runtime::http::serve(listener, router, &http, &metrics, stop).await },
        )
    };

    let start = async {
        let log = storage.open_log().await?;
        let parts = ProcessorParts {
            source: log.source,
            topic: storage.topic().to_owned(),
            dead_letters: log.dead_letters,
            store: storage.open_store().await?,
            cache: storage.open_cache().await,
            definitions: storage.open_definitions()?,
        };
        anyhow::Ok(Processor::start(&config, parts, &metrics, &health, shutdown.token()).await?)
    };
    // Servers that do not answer must not keep it from ending when it is told to.
    if let Some(processor) = shutdown.token().run_until_cancelled(start).await.transpose()? {
        tracing::info!(listen = %config.listen, "processor started");
        shutdown.token().cancelled().await;
        tracing::info!("stopping: the last commits are made");
        processor.stopped().await;
    }
    // Health and metrics answer until the very end.
    stop_http.cancel();
    server.await??;
    Ok(())
}
