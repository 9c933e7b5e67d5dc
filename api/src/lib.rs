//! The read API: budget definitions, aggregates, a person's own allocation, and the administrators' routes.
//!
//! An aggregate is served from this process's memory while it is fresh. Otherwise the tiers are queried in order:
//! Redis → committed totals → recount (`tier_chain`, `tier_query`; the decisions are in `read_policy`). Each tier has
//! its own deadline and circuit breaker (`tiers::guard`). If no tier answers, memory's last answer is served, however
//! old. A background task (`refresher`) keeps memory current, so almost every read is a copy of bytes from memory.
//! No reader of one process ever sees a total or a version go backwards.
//!
//! What a client can make the store do is bounded: concurrent reads (`read_limit`, `history`), waiting reads
//! (`client_limit`, `log_ends`), streams (`answer_streams`), downloads (`downloads`), and recounts (`tiers::recount`).
//!
//! | module | owns |
//! |---|---|
//! | `routes` | requests and responses, one file or folder per route |
//! | `aggregate_reader`, `answer` | the answer that everyone wants: read, and rendered |
//! | `tiers`, `tier_chain`, `tier_query` | the sources of answers, and asking them in order |
//! | `read_policy`, `breaker`, `single_flight` | which tier is asked, and how often |
//! | `refresher`, `answer_streams` | keeping memory current, and sending each newer answer |
//! | `person_reader`, `person_store`, `history`, `downloads` | what is read besides aggregates |
//! | `consistency`, `log_ends`, `wait_limits` | "at least my submission", and who may wait for it |
//! | `read_limit`, `client_limit` | bounds of reads, of waiting reads and of streams |
//! | `active_generation`, `registry` | which generation is active |
//! | `site`, `parameters`, `rfc3339`, `no_answer` | what several routes share |
//! | `readiness`, `metrics`, `config` | health, counts and settings |
//!
//! This crate does not fold records. It writes the jobs that administrators submit, and forgets the persons of a closed
//! budget (`routes::admin::forget`).

mod active_generation;
mod aggregate_reader;
mod answer;
mod answer_streams;
mod breaker;
mod client_limit;
mod config;
mod consistency;
mod downloads;
mod history;
mod log_ends;
mod metrics;
mod no_answer;
mod parameters;
mod person_reader;
mod person_store;
mod read_limit;
mod read_policy;
mod readiness;
mod refresher;
mod registry;
mod rfc3339;
mod routes;
mod single_flight;
mod site;
mod tier_chain;
mod tier_query;
mod tiers;
mod wait_limits;

use std::sync::Arc;

use axum::Router;
use identity::Authorizer;
use runtime::admin::AdminGuard;
use runtime::health::Health;
use runtime::limits::RequestLimits;
use runtime::metrics::{Metrics, MetricsError};
use schemas::PersonSecret;
use storage::cache::Cache;
use storage::control::{AnnulmentRegisters, BudgetDefinitions};
use storage::exports::Exports;
use storage::jobs::JobStore;
use storage::log::dead_letters::DeadLetterJournalOpener;
use storage::signals::{SignalEraser, SignalReader};
use storage::store::Store;
use tokio_util::sync::CancellationToken;

pub use config::ApiConfig;
use routes::admin::{AnnulmentService, ForgetService, SignalService};
pub use routes::openapi;

use active_generation::ActiveGenerationCache;
use aggregate_reader::AggregateReader;
use answer_streams::AnswerStreams;
use downloads::Downloads;
use history::HistoryReader;
use log_ends::LogEnds;
use metrics::ApiMetrics;
use person_reader::PersonReader;
use person_store::PersonStore;
use readiness::Readiness;
use refresher::Refresher;
use registry::RegistryReader;
use site::Site;
use tier_chain::TierChain;
use tier_query::Tiers;
use tiers::memory::Memory;
use wait_limits::WaitLimits;

/// The budget that `/aggregate/` serves.
pub const DEFAULT_BUDGET: &str = schemas::DEFAULT_BUDGET;

/// Dependencies of the read API. Each backend may be unreachable at any time, also at startup.
pub struct ApiDeps {
    /// Committed totals and person rows.
    pub store: Arc<dyn Store>,
    /// Published totals, and notifications of their changes.
    pub cache: Arc<dyn Cache>,
    /// Budget definitions.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// Derives person keys from person names.
    pub person_secret: PersonSecret,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Opens the dead letter journal and the log that holds the dead letters' bytes.
    pub dead_letters: Arc<dyn DeadLetterJournalOpener>,
    /// Signals of submissions.
    pub signals: Arc<dyn SignalReader>,
    /// Erases the signals of forgotten budgets.
    pub signal_eraser: Arc<dyn SignalEraser>,
    /// The operators' list of annulments.
    pub annulments: Arc<dyn AnnulmentRegisters>,
    /// Published exports.
    pub exports: Exports,
    /// Authenticates and authorizes administrators.
    pub admin: AdminGuard,
    /// Limits the requests of the public.
    pub limits: RequestLimits,
    /// Decides who may read whose allocation.
    pub authorizer: Authorizer,
}

/// Builds the routes and starts the background refresh, which ends with `stop`.
///
/// Must be called inside a tokio runtime. Readiness is reported to `health`.
///
/// # Errors
/// If a metric's name is taken.
pub fn routes(
    config: &ApiConfig,
    deps: ApiDeps,
    metrics: &Metrics,
    health: &Health,
    stop: CancellationToken,
) -> Result<Router, MetricsError> {
    let metrics = ApiMetrics::register(metrics)?;
    let ApiDeps {
        store,
        cache,
        definitions,
        person_secret,
        jobs,
        dead_letters,
        signals,
        signal_eraser,
        annulments,
        exports,
        admin,
        limits,
        authorizer,
    } = deps;
    let memory = Arc::new(Memory::new(config.freshness));
    let generation = Arc::new(ActiveGenerationCache::new(store.clone()));
    let tiers = Tiers::new(
        config,
        Arc::clone(&memory),
        Arc::clone(&definitions),
        Arc::clone(&cache),
        Arc::clone(&store),
        Arc::clone(&generation),
        &metrics,
    );
    let tier_chain = Arc::new(TierChain::new(Arc::clone(&memory), tiers));
    let refresher = Refresher {
        memory: Arc::clone(&memory),
        tier_chain: Arc::clone(&tier_chain),
        definitions: Arc::clone(&definitions),
        readiness: Readiness::new(health),
        metrics: metrics.clone(),
    };
    tokio::spawn(refresher.run(cache, stop.clone()));
    let registry = RegistryReader::new(store.clone(), config.summary_deadline);
    let trusted_proxies = admin.trusted_proxies().clone();
    let signals = SignalService::new(signals, Arc::clone(&definitions));
    let annulments = AnnulmentService::new(Arc::clone(&definitions), annulments, Arc::clone(&jobs));
    let forget = ForgetService::new(Arc::clone(&definitions), Arc::clone(&store), signal_eraser);
    let administrators =
        routes::admin::router(&admin, registry, jobs, dead_letters, signals, annulments, forget);
    let waits = WaitLimits::new(config, &metrics);
    let receipt_signer = person_secret.receipt_signer();
    let streams = AnswerStreams::new(config, Arc::clone(&memory), &metrics, stop);
    let histories =
        HistoryReader::new(config, Arc::clone(&store), Arc::clone(&generation), &metrics);
    let person_store = Arc::new(PersonStore::new(config, store, &metrics));
    let log_ends = Arc::new(LogEnds::new(Arc::clone(&person_store), Arc::clone(&generation)));
    let people = PersonReader::new(
        person_store,
        generation,
        person_secret,
        waits.clone(),
        Arc::clone(&log_ends),
        &metrics,
    );
    let downloads = Downloads::new(config, exports, &metrics);
    let aggregates = AggregateReader::new(
        memory,
        tier_chain,
        Arc::clone(&definitions),
        receipt_signer.clone(),
        waits,
        log_ends,
        metrics,
    );
    let state = routes::ApiState {
        definitions,
        rendered: Default::default(),
        pages: Default::default(),
        aggregates,
        streams,
        people,
        histories,
        receipt_signer,
        downloads,
        authorizer,
        site: Site::new(config.public_url.clone(), &config.embed_ancestors),
        trusted_proxies,
    };
    Ok(routes::router(Arc::new(state), &limits).merge(administrators))
}
