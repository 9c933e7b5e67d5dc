//! The read API's process. It starts even when its backends are unreachable.

use std::process::ExitCode;
use std::sync::Arc;

use api::{ApiConfig, ApiDeps};
use clap::Parser;
use identity::Authorizer;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::{ConfigArgs, Reader, ServiceConfig};
use runtime::http;
use runtime::limits::{LimitsConfig, LocalCounters, RequestLimits};
use runtime::principal::IdentityConfig;
use runtime::process::{self, Process};
use storage::config::StorageConfig;
use storage::control::wait_for_other_secret;
use storage::deferred::DeferredStore;
use storage::open_error::retry_until_available;

const SERVICE: &str = "api";

/// Serve budgets, their aggregates and persons' allocations over HTTP
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The settings of this process that not every service has.
struct OwnConfig {
    api: ApiConfig,
    admin: AdminConfig,
    limits: LimitsConfig,
    identity: IdentityConfig,
}

impl OwnConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let api = ApiConfig::read(reader);
        let admin = AdminConfig::read(reader);
        let limits = LimitsConfig::read(reader);
        let identity = IdentityConfig::read(reader);
        Some(Self { api: api?, admin: admin?, limits: limits?, identity: identity? })
    }
}

fn main() -> ExitCode {
    process::run(async { process::exit_code(SERVICE, run(&Args::parse()).await) })
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = ServiceConfig::load(&args.config, StorageConfig::read_shared, OwnConfig::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.api.listen)?;

    let admin = AdminGuard::new(&config.own.admin, metrics)?;
    tokio::spawn(admin.clone().reload_tokens_file(stop.clone()));
    let proxies = config.own.admin.trusted_proxies.clone();
    let store = Arc::new(DeferredStore::new());
    let person_secret = config.storage.person_secret()?;
    let control = config.storage.open_control_topic()?;
    let (identity, revoked) = (&config.own.identity, control.revocations.subscribe_revoked());
    let authorizer = Authorizer::new(identity, &person_secret, revoked, admin.clone(), metrics)?;
    tokio::spawn(authorizer.clone().run(stop.clone()));
    // Reads are counted by each process.
    let limits = RequestLimits::new(
        &config.own.limits,
        config.process.http.max_requests,
        authorizer.authenticator().clone(),
        Arc::<LocalCounters>::default(),
        metrics,
    )?;
    let deps = ApiDeps {
        store: store.clone(),
        cache: config.storage.open_cache().await,
        definitions: control.definitions,
        person_secret: person_secret.clone(),
        jobs: store.clone(),
        dead_letters: Arc::new(config.storage.clone()),
        signals: config.storage.signal_reader(),
        signal_eraser: config.storage.signal_eraser(),
        annulments: control.annulments,
        exports: config.storage.exports(),
        admin,
        limits,
        authorizer,
    };
    let routes = api::routes(&config.own.api, deps, metrics, health, stop.clone())?;
    let router = http::router(SERVICE, routes, metrics, health, &config.process.http);
    tracing::info!(listen = %config.own.api.listen, "api started");

    let open = async {
        let open = retry_until_available(async || config.storage.open_store().await);
        if let Some(opened) = stop.run_until_cancelled(open).await.transpose()? {
            store.set(opened);
            tracing::info!("store opened");
        }
        anyhow::Ok(())
    };
    let check_secret = async {
        let other = wait_for_other_secret(control.secret.as_ref(), &person_secret);
        stop.run_until_cancelled(other).await.map_or(Ok(()), |error| Err(error.into()))
    };
    let http = &config.process.http;
    let serve = http::serve(listener, router, http, &proxies, metrics, stop.clone());
    // A permanent error of the store (wrong schema, wrong deployment) or another person secret ends the process.
    tokio::try_join!(async { Ok(serve.await?) }, open, check_secret)?;
    Ok(())
}
