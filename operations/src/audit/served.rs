//! Totals that readers are served, with the positions they reflect.
//!
//! The cache stores positions. An api's response has a version derived from them, which is matched with positions of
//! the cache and the store observed meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use schemas::{
    AggregateVersion, BudgetId, CategoryTotals, CombinedTotals, DISTRIBUTION_BINS,
    GenerationRegistry, Position,
};
use serde::Deserialize;
use tokio::time::Instant;

use storage::retry::retry;

use super::{AuditDeps, AuditReport, Subject};
use crate::BackendError;

/// How long to wait for the cache to be complete.
const CACHE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a comparable response of an api.
const MATCH_TIMEOUT: Duration = Duration::from_secs(20);
const CACHE_POLL_INTERVAL: Duration = Duration::from_millis(50);
const API_POLL_INTERVAL: Duration = Duration::from_millis(10);
const API_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Totals of one budget as one subject serves them.
#[derive(Debug)]
pub(super) struct ServedTotals {
    pub subject: Subject,
    pub budget: BudgetId,
    pub totals: CombinedTotals,
}

/// Reads every budget from the cache and from every api. `people` of each budget are as stored.
pub(super) async fn read_served_totals(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    people: &BTreeMap<BudgetId, u64>,
    report: &mut AuditReport,
) -> Result<Vec<ServedTotals>, BackendError> {
    let budgets = report.budgets.clone();
    let mut served = Vec::new();
    if deps.cache.is_some() {
        poll_cache(deps, registry, &budgets, &mut served, report).await;
    }
    if !deps.apis.is_empty() {
        let client = runtime::http_client::builder().timeout(API_REQUEST_TIMEOUT).build();
        let client = client.map_err(|error| BackendError::Invalid(error.to_string()))?;
        for url in &deps.apis {
            let api = Api { client: &client, url: url.trim_end_matches('/'), people };
            let subject = Subject::Api(url.clone());
            let (found, unchecked) = api.poll(deps, registry, &budgets).await;
            if !found.is_empty() {
                report.subjects.insert(subject.clone());
            }
            served.extend(found.into_iter().map(|(budget, totals)| {
                let subject = subject.clone();
                ServedTotals { subject, budget, totals }
            }));
            let unchecked = unchecked.into_iter();
            report.unchecked.extend(
                unchecked.map(|(budget, reason)| format!("{subject}, budget `{budget}`: {reason}")),
            );
        }
    }
    Ok(served)
}

/// Polls the cache, which is complete again after an emptying once every owner has confirmed its totals.
async fn poll_cache(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    budgets: &BTreeSet<BudgetId>,
    served: &mut Vec<ServedTotals>,
    report: &mut AuditReport,
) {
    let deadline = Instant::now() + CACHE_TIMEOUT;
    let mut missing: Vec<BudgetId> = budgets.iter().cloned().collect();
    loop {
        let reason = match read_cache(deps, registry, &missing).await {
            Ok(totals) => {
                for (budget, totals) in std::mem::take(&mut missing).into_iter().zip(totals) {
                    match totals {
                        Some(totals) => {
                            served.push(ServedTotals { subject: Subject::Cache, budget, totals })
                        }
                        None => missing.push(budget),
                    }
                }
                "it has no complete totals of the active generation".to_owned()
            }
            Err(reason) => reason,
        };
        if missing.is_empty() {
            report.subjects.insert(Subject::Cache);
            return;
        }
        if Instant::now() > deadline {
            let unchecked = |budget| format!("the cache, budget `{budget}`: {reason}");
            report.unchecked.extend(missing.iter().map(unchecked));
            return;
        }
        tokio::time::sleep(CACHE_POLL_INTERVAL).await;
    }
}

/// Reads the cache's totals in the order of `budgets`; `None` unless complete and of the active generation.
async fn read_cache(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    budgets: &[BudgetId],
) -> Result<Vec<Option<CombinedTotals>>, String> {
    let Some(cache) = &deps.cache else { return Ok(vec![None; budgets.len()]) };
    let totals = cache.read(budgets).await.map_err(|error| error.to_string())?;
    let count = registry.active.log.partitions.get() as usize;
    let is_complete =
        |totals: &CombinedTotals| totals.term == registry.term() && totals.positions.len() == count;
    Ok(totals.into_iter().map(|totals| totals.filter(is_complete)).collect())
}

struct Api<'a> {
    client: &'a reqwest::Client,
    url: &'a str,
    /// The stored people of each budget.
    people: &'a BTreeMap<BudgetId, u64>,
}

/// The compared part of an api's response.
#[derive(Deserialize)]
struct ApiResponse {
    people: u64,
    #[serde(default, rename = "final")]
    is_final: bool,
    #[serde(default)]
    annulled: u64,
    version: String,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Category {
    total_basis_points: u64,
    distribution: Vec<u64>,
}

/// A response whose results are withheld by the budget's rules.
#[derive(Deserialize)]
struct Withheld {
    #[serde(rename = "withheld")]
    _reason: serde::de::IgnoredAny,
}

/// Matched totals by budget, and the reasons for budgets without a match.
type ApiTotals = (Vec<(BudgetId, CombinedTotals)>, Vec<(BudgetId, String)>);

impl Api<'_> {
    /// Polls until each budget has a response whose positions were observed, except withheld and deleted ones. Versions
    /// change within milliseconds, so any matching response will do.
    async fn poll(
        &self,
        deps: &AuditDeps,
        registry: &GenerationRegistry,
        budgets: &BTreeSet<BudgetId>,
    ) -> ApiTotals {
        let deadline = Instant::now() + MATCH_TIMEOUT;
        let mut found = Vec::new();
        let mut pending: Vec<PendingBudget> =
            budgets.iter().cloned().map(PendingBudget::new).collect();
        while !pending.is_empty() && Instant::now() < deadline {
            if let Err(error) = observe_positions(deps, registry, &mut pending).await {
                pending.iter_mut().for_each(|budget| budget.reason = error.to_string());
            }
            let mut unmatched = Vec::new();
            for mut budget in pending {
                if Instant::now() < deadline && budget.add_response(self.get(&budget.id).await) {
                    continue;
                }
                match budget.matched(registry) {
                    Some(totals) => found.push((budget.id, totals)),
                    None => unmatched.push(budget),
                }
            }
            pending = unmatched;
            tokio::time::sleep(API_POLL_INTERVAL).await;
        }
        (found, pending.into_iter().map(|budget| (budget.id, budget.reason)).collect())
    }

    async fn get(&self, budget: &BudgetId) -> Result<Option<ApiResponse>, String> {
        let url = format!("{}/v1/budgets/{budget}/aggregate?include=distribution", self.url);
        let failed = |error: reqwest::Error| error.to_string();
        let response = self.client.get(url).send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        // A budget without people may have been deleted.
        if status == reqwest::StatusCode::NOT_FOUND && self.people.get(budget) == Some(&0) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(format!("it responds with status {status}"));
        }
        if serde_json::from_slice::<Withheld>(&body).is_ok() {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&body);
        parsed.map(Some).map_err(|error| format!("its response cannot be decoded: {error}"))
    }
}

/// A budget without a match yet: the api's responses and the observed positions, by version.
struct PendingBudget {
    id: BudgetId,
    responses: HashMap<String, ApiResponse>,
    observed: HashMap<String, Vec<Position>>,
    reason: String,
}

impl PendingBudget {
    fn new(id: BudgetId) -> Self {
        let reason = "it was not requested".to_owned();
        Self { id, responses: HashMap::new(), observed: HashMap::new(), reason }
    }

    /// Adds a response; returns whether the results are withheld, or the budget is deleted.
    fn add_response(&mut self, response: Result<Option<ApiResponse>, String>) -> bool {
        match response {
            Ok(None) => return true,
            Ok(Some(response)) => {
                self.reason =
                    format!("no other subject was observed at its version {}", response.version);
                self.responses.insert(response.version.clone(), response);
            }
            Err(reason) => self.reason = reason,
        }
        false
    }

    /// Takes a response whose positions were observed.
    fn matched(&mut self, registry: &GenerationRegistry) -> Option<CombinedTotals> {
        let version =
            self.responses.keys().find(|version| self.observed.contains_key(*version))?.clone();
        let (response, positions) =
            (self.responses.remove(&version)?, self.observed.remove(&version)?);
        response.into_totals(registry, positions).map_err(|reason| self.reason = reason).ok()
    }
}

/// Records the current positions of the cache and the store.
async fn observe_positions(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    pending: &mut [PendingBudget],
) -> Result<(), BackendError> {
    let budgets: Vec<BudgetId> = pending.iter().map(|budget| budget.id.clone()).collect();
    // An unavailable cache contributes nothing; the store still may.
    let cached = read_cache(deps, registry, &budgets).await.unwrap_or_default();
    let (number, count) = (registry.active.generation, registry.active.log.partitions);
    let stored = retry(|| deps.store.summaries(number, count, &budgets)).await?;
    let stored = stored.into_iter().map(|summary| {
        let partitions = summary.ok()?;
        CombinedTotals::merge(registry.term(), count, &partitions).ok()
    });
    for totals in [cached, stored.collect()] {
        for (budget, totals) in pending.iter_mut().zip(totals) {
            if let Some(totals) = totals {
                let version = AggregateVersion::of(&totals).to_string();
                budget.observed.insert(version, totals.positions);
            }
        }
    }
    Ok(())
}

impl ApiResponse {
    fn into_totals(
        self,
        registry: &GenerationRegistry,
        positions: Vec<Position>,
    ) -> Result<CombinedTotals, String> {
        let category = |category: Category| {
            let people_by_percent =
                category.distribution.try_into().map_err(|counts: Vec<u64>| {
                    format!("a distribution of {} counts, not {DISTRIBUTION_BINS}", counts.len())
                })?;
            Ok(CategoryTotals { basis_points: category.total_basis_points, people_by_percent })
        };
        let closed_partitions = if self.is_final { positions.len() as u32 } else { 0 };
        Ok(CombinedTotals {
            term: registry.term(),
            closed_partitions,
            annulled: self.annulled,
            positions,
            people: self.people,
            updated_at_ms: 0,
            categories: self.categories.into_iter().map(category).collect::<Result<_, String>>()?,
        })
    }
}
