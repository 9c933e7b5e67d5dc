//! The ingest process. It starts without the log and accepts submissions once the log is available.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use identity::Authorizer;
use ingest::{CountedPeople, EmailConfig, IngestConfig, IngestDeps};
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::{ConfigArgs, Reader, ServiceConfig};
use runtime::http;
use runtime::limits::{LimitsConfig, RequestLimits};
use runtime::principal::IdentityConfig;
use runtime::process::{self, Process};
use storage::config::StorageConfig;
use storage::deferred::DeferredLog;
use storage::open_error::retry_until_available;

/// Requests make many small allocations that another thread frees, which glibc's allocator is slow at.
/// (The processor keeps glibc's allocator, which holds less memory in reserve.)
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: &str = "ingest";

/// Accept submissions over HTTP and append them to the log
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The settings of this process that not every service has.
struct OwnConfig {
    ingest: IngestConfig,
    admin: AdminConfig,
    limits: LimitsConfig,
    identity: IdentityConfig,
    email: EmailConfig,
}

impl OwnConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let ingest = IngestConfig::read(reader);
        let admin = AdminConfig::read(reader);
        let limits = LimitsConfig::read(reader);
        let identity = IdentityConfig::read(reader);
        let email = EmailConfig::read(reader);
        Some(Self {
            ingest: ingest?,
            admin: admin?,
            limits: limits?,
            identity: identity?,
            email: email?,
        })
    }
}

fn main() -> ExitCode {
    process::run(async { process::exit_code(SERVICE, run(&Args::parse()).await) })
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = ServiceConfig::load(&args.config, StorageConfig::read_shared, OwnConfig::read)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.own.ingest.listen)?;

    let admin = AdminGuard::new(&config.own.admin, metrics)?;
    tokio::spawn(admin.clone().reload_tokens_file(stop.clone()));
    let proxies = config.own.admin.trusted_proxies.clone();
    let log = Arc::new(DeferredLog::new());
    let person_secret = config.storage.person_secret()?;
    let control = config.storage.open_control_topic()?;
    let (identity, revoked) = (&config.own.identity, control.revocations.subscribe_revoked());
    let authorizer = Authorizer::new(identity, &person_secret, revoked, admin.clone(), metrics)?;
    tokio::spawn(authorizer.clone().run(stop.clone()));
    let counters = config.storage.open_limit_counters().await;
    let authenticator = authorizer.authenticator().clone();
    let (limits, max_requests) = (&config.own.limits, config.process.http.max_requests);
    let limits = RequestLimits::new(limits, max_requests, authenticator, counters, metrics)?;
    let codes = config.storage.open_one_time_codes().await;
    let email =
        ingest::email_sign_in(&config.own.email, &person_secret, codes, metrics, stop.clone())?;
    let supports_email = email.is_some();
    let deps = IngestDeps {
        log: log.clone(),
        definitions: Arc::clone(&control.definitions),
        idempotency: config.storage.open_idempotency(&control.active_log).await,
        person_secret: person_secret.clone(),
        signals: config.storage.signal_writer(),
        people: Arc::new(CountedPeople::opened_when_needed(config.storage.clone())),
        admin,
        limits,
        authorizer,
        email,
    };
    let definitions = Arc::clone(&control.definitions);
    let (routes, signals) = ingest::routes(&config.own.ingest, deps, metrics)?;
    let router = http::router(SERVICE, routes, metrics, health, &config.process.http);
    tracing::info!(listen = %listener.local_addr()?, "ingest started");
    tokio::spawn(ingest::watch_readiness(
        log.clone(),
        Arc::clone(&definitions),
        health.clone(),
        metrics,
        stop.clone(),
    )?);

    if !supports_email {
        tokio::spawn(ingest::report_budgets_without_email(
            Arc::clone(&control.definitions),
            stop.clone(),
        ));
    }

    let open = async {
        let open = retry_until_available(async || {
            config.storage.open_log_writer(&control, &person_secret).await
        });
        if let Some(opened) = stop.run_until_cancelled(open).await.transpose()? {
            log.set(opened);
            tracing::info!("log opened, accepting submissions");
            let announced = config.storage.announced_log(control.active_log.as_ref());
            let storage = config.storage.clone();
            let has_records = move || {
                let (storage, log) = (storage.clone(), announced.clone());
                async move { storage.has_records(&log).await }
            };
            let storage = config.storage.clone();
            let count_brokers = move || {
                let storage = storage.clone();
                async move { storage.brokers_without_replicas().await }
            };
            tokio::spawn(ingest::report_replication(count_brokers, metrics, stop.clone())?);
            let (storage, active_log) = (config.storage.clone(), Arc::clone(&control.active_log));
            let refused_settings = move || {
                let (storage, log) = (storage.clone(), storage.announced_log(active_log.as_ref()));
                async move { storage.refused_topic_settings(&log).await }
            };
            tokio::spawn(ingest::report_topic_settings(refused_settings, metrics, stop.clone())?);
            tokio::spawn(ingest::define_default_budgets(
                definitions,
                has_records,
                metrics,
                stop.clone(),
            )?);
        }
        anyhow::Ok(())
    };
    let http = &config.process.http;
    let serve = http::serve(listener, router, http, &proxies, metrics, stop.clone());
    // An error of opening is permanent, such as another person secret than the log's, and ends the process.
    let ended = tokio::try_join!(async { Ok(serve.await?) }, open);
    signals.flush().await;
    ended?;
    Ok(())
}
