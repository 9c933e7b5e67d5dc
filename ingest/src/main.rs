//! The process that takes submissions. It starts whether or not the log is there, and takes them once it is.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ingest::{IngestConfig, IngestParts};
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::{ConfigArgs, Reader};
use runtime::http;
use runtime::process::{self, Process};
use storage::late::LateLog;
use storage::opening::until_there;
use storage::service_config::ServiceConfig;

/// A request is many small pieces of memory that one thread takes and another gives back: what glibc's allocator is
/// slow at. (The processor keeps glibc's, which holds less in reserve.)
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: &str = "ingest";

/// Takes submissions over HTTP and puts them into the log.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The settings of this process beside those that all services have.
struct Own {
    ingest: IngestConfig,
    admin: AdminConfig,
}

impl Own {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let ingest = IngestConfig::read(reader);
        let admin = AdminConfig::read(reader);
        Some(Self { ingest: ingest?, admin: admin? })
    }
}

fn main() -> ExitCode {
    process::run(async { process::exit_code(SERVICE, run(&Args::parse()).await) })
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = ServiceConfig::load(&args.config, Own::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.ingest.listen)?;

    let admin = AdminGuard::new(&config.own.admin, metrics)?;
    tokio::spawn(admin.clone().follow_tokens_file(stop.clone()));
    let log = Arc::new(LateLog::new());
    let parts = IngestParts {
        log: log.clone(),
        definitions: config.storage.open_definitions()?,
        idempotency: config.storage.open_idempotency().await,
        hasher: config.storage.hasher()?,
        admin,
    };
    let definitions = Arc::clone(&parts.definitions);
    let routes = ingest::routes(&config.own.ingest, parts, metrics)?;
    let router = http::router(SERVICE, routes, metrics, health, &config.process.http);
    tracing::info!(address = %listener.local_addr()?, "answering submissions");
    let watched = (log.clone(), Arc::clone(&definitions), health.clone());
    tokio::spawn(ingest::watch_readiness(watched.0, watched.1, watched.2, stop.clone()));

    let open = async {
        let open = until_there(async || config.storage.open_log_writer(definitions.as_ref()).await);
        if let Some(opened) = stop.run_until_cancelled(open).await.transpose()? {
            log.set(opened);
            tracing::info!("the log is there: taking submissions");
            tokio::spawn(ingest::define_default_budgets(definitions, stop.clone()));
        }
        anyhow::Ok(())
    };
    let serve = http::serve(listener, router, &config.process.http, metrics, stop.clone());
    // A log that is not what it should be ends the process.
    tokio::try_join!(async { Ok(serve.await?) }, open)?;
    Ok(())
}
