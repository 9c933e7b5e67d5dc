//! The process that answers reads. It starts whatever is away, and answers from what is there.

use std::process::ExitCode;
use std::sync::Arc;

use api::{ApiConfig, ApiParts};
use clap::Parser;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::{ConfigArgs, Reader};
use runtime::http;
use runtime::process::{self, Process};
use storage::late::{LateJobs, LateStore};
use storage::opening::until_there;
use storage::service_config::ServiceConfig;

const SERVICE: &str = "api";

/// Answers reads: budgets, their aggregates, a person's own allocation.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The settings of this process beside those that all services have.
struct Own {
    api: ApiConfig,
    admin: AdminConfig,
}

impl Own {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let api = ApiConfig::read(reader);
        let admin = AdminConfig::read(reader);
        Some(Self { api: api?, admin: admin? })
    }
}

fn main() -> ExitCode {
    process::run(async { process::exit_code(SERVICE, run(&Args::parse()).await) })
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = ServiceConfig::load(&args.config, Own::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.api.listen)?;

    let admin = AdminGuard::new(&config.own.admin, metrics)?;
    tokio::spawn(admin.clone().follow_tokens_file(stop.clone()));
    let (store, jobs) = (Arc::new(LateStore::new()), Arc::new(LateJobs::new()));
    let parts = ApiParts {
        store: store.clone(),
        cache: config.storage.open_cache().await,
        definitions: config.storage.open_definitions()?,
        hasher: config.storage.hasher()?,
        jobs: jobs.clone(),
        letters: Arc::new(config.storage.clone()),
        exports: config.storage.exports(),
        admin,
    };
    let routes = api::routes(&config.own.api, parts, metrics, health, stop.clone())?;
    let router = http::router(SERVICE, routes, metrics, health, &config.process.http);
    tracing::info!(address = %config.own.api.listen, "answering reads");

    let open = async {
        let open = until_there(async || config.storage.open_store().await);
        if let Some(opened) = stop.run_until_cancelled(open).await.transpose()? {
            store.set(opened.store);
            jobs.set(opened.jobs);
            tracing::info!("the store is there");
        }
        anyhow::Ok(())
    };
    let serve = http::serve(listener, router, &config.process.http, metrics, stop.clone());
    // A store that is not what it should be ends the process.
    tokio::try_join!(async { Ok(serve.await?) }, open)?;
    Ok(())
}
