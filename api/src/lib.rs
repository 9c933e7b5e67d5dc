//! The reads: budgets' definitions, their aggregates, a person's own allocation, and what administrators look at.
//!
//! An aggregate comes from this process's memory if that is fresh, else along the chain Redis → committed totals →
//! recount (`walk`, decided by `chain`), each tier behind its own deadline and breaker (`ask`, `tiers::guard`), and at
//! last from memory again, however old. A background task (`refresher`) keeps memory up, so that nearly every read is
//! bytes from memory. Whatever happens, no reader of a process sees a number or a version go back.
//!
//! What this crate does not do: it counts nothing except in a recount, and writes nothing but the jobs that administrators
//! ask for.

mod answer;
mod ask;
mod breaker;
mod chain;
mod config;
mod consistency;
mod generation;
mod metrics;
mod people;
mod reader;
mod readiness;
mod refresher;
mod roster;
mod routes;
mod single_flight;
mod tiers;
mod waiters;
mod walk;

use std::sync::Arc;

use axum::Router;
use runtime::admin::AdminGuard;
use runtime::health::Health;
use runtime::metrics::{Metrics, MetricsError};
use schemas::PersonKeyHasher;
use storage::cache::Cache;
use storage::definitions::Definitions;
use storage::exports::Exports;
use storage::jobs::JobStore;
use storage::log::letters::LetterPlaces;
use storage::store::Store;
use tokio_util::sync::CancellationToken;

pub use breaker::BreakerSettings;
pub use config::ApiConfig;

use ask::Tiers;
use generation::CurrentGeneration;
use metrics::ApiMetrics;
use people::People;
use reader::Reader;
use readiness::Readiness;
use refresher::Refresher;
use roster::RosterReader;
use tiers::memory::Memory;
use waiters::Waiters;
use walk::Walker;

/// The budget of `/aggregate/`.
pub const DEFAULT_BUDGET: &str = "taxes";

/// The places that the reads read from. Any of them may be away, now or later.
pub struct ApiParts {
    /// Committed totals and people's rows.
    pub store: Arc<dyn Store>,
    /// The copy of the totals, and news of it.
    pub cache: Arc<dyn Cache>,
    /// Budgets' definitions.
    pub definitions: Arc<dyn Definitions>,
    /// Makes person keys.
    pub hasher: PersonKeyHasher,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Dead letters.
    pub letters: Arc<dyn LetterPlaces>,
    /// Published exports.
    pub exports: Exports,
    /// Lets administrators pass, and nobody else.
    pub admin: AdminGuard,
}

/// The routes of the reads, and the background task behind them, which ends with `stop`. Must be called inside a
/// tokio runtime. Readiness is told to `health`.
///
/// # Errors
/// If a metric's name is taken.
pub fn routes(
    config: &ApiConfig,
    parts: ApiParts,
    metrics: &Metrics,
    health: &Health,
    stop: CancellationToken,
) -> Result<Router, MetricsError> {
    let metrics = ApiMetrics::register(metrics)?;
    let ApiParts { store, cache, definitions, hasher, jobs, letters, exports, admin } = parts;
    let memory = Arc::new(Memory::new(config.freshness));
    let generation = Arc::new(CurrentGeneration::new(Arc::clone(&store)));
    let tiers = Tiers::new(
        config,
        Arc::clone(&memory),
        Arc::clone(&definitions),
        Arc::clone(&cache),
        Arc::clone(&store),
        Arc::clone(&generation),
        &metrics,
    );
    let walker = Arc::new(Walker::new(Arc::clone(&memory), tiers));
    let refresher = Refresher {
        memory: Arc::clone(&memory),
        walker: Arc::clone(&walker),
        definitions: Arc::clone(&definitions),
        readiness: Readiness::new(health),
        metrics: metrics.clone(),
    };
    tokio::spawn(refresher.run(cache, stop));
    let roster = RosterReader::new(Arc::clone(&store), config.summary_deadline);
    let administrators = routes::admin::router(&admin, roster, jobs, letters);
    let waiters = Arc::new(Waiters::new(config.max_waiters, &metrics));
    let people = People::new(config, store, generation, hasher, Arc::clone(&waiters), &metrics);
    let downloads =
        routes::Downloads::new(exports, config.max_downloads, metrics.downloads.clone());
    let reader = Reader::new(memory, walker, Arc::clone(&definitions), waiters, metrics);
    let reads = routes::router(Arc::new(routes::Api { definitions, reader, people, downloads }));
    Ok(reads.merge(administrators))
}
