//! What readers are shown, and the positions that it reflects.
//!
//! The cache says its positions. An api's answer says a version, which is made of them: it is matched with what the
//! cache and the store say at the same time, and asked again while everything moves on too fast for that.

use std::collections::BTreeSet;
use std::time::Duration;

use schemas::{
    AggregateVersion, BudgetId, CategoryTotals, CombinedTotals, DISTRIBUTION_BINS, Position,
};
use serde::Deserialize;
use storage::store::GenerationRecord;
use tokio::time::Instant;

use super::{AuditError, AuditParts, Place, Report, again};

/// How long the cache may lack a budget, or an api run ahead of everything that it could be compared with.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// One place's numbers of one budget.
#[derive(Debug)]
pub(super) struct Shown {
    pub place: Place,
    pub budget: BudgetId,
    pub totals: CombinedTotals,
}

/// Looks at every budget in the cache and in every api.
pub(super) async fn look(
    parts: &AuditParts,
    generation: &GenerationRecord,
    report: &mut Report,
) -> Result<Vec<Shown>, AuditError> {
    let budgets = report.budgets.clone();
    let mut shown = Vec::new();
    if parts.cache.is_some() {
        look_at_cache(parts, generation, &budgets, &mut shown, report).await;
    }
    if !parts.apis.is_empty() {
        let client = reqwest::Client::builder().timeout(API_TIMEOUT).build();
        let client = client.map_err(|error| AuditError::Wrong(error.to_string()))?;
        for url in &parts.apis {
            let api = Api { client: &client, url: url.trim_end_matches('/') };
            for budget in &budgets {
                match api.look(parts, generation, budget).await {
                    Ok(Some(totals)) => {
                        let place = Place::Api(url.clone());
                        report.places.insert(place.clone());
                        shown.push(Shown { place, budget: budget.clone(), totals });
                    }
                    Ok(None) => {}
                    Err(reason) => report
                        .unchecked
                        .push(format!("the api at {url}, budget `{budget}`: {reason}")),
                }
            }
        }
    }
    Ok(shown)
}

/// An emptied cache is whole again once every owner has published anew.
async fn look_at_cache(
    parts: &AuditParts,
    generation: &GenerationRecord,
    budgets: &BTreeSet<BudgetId>,
    shown: &mut Vec<Shown>,
    report: &mut Report,
) {
    let deadline = Instant::now() + PATIENCE;
    let mut missing: Vec<BudgetId> = budgets.iter().cloned().collect();
    loop {
        let reason = match read_cache(parts, generation, &missing).await {
            Ok(totals) => {
                for (budget, totals) in std::mem::take(&mut missing).into_iter().zip(totals) {
                    match totals {
                        Some(totals) => shown.push(Shown { place: Place::Cache, budget, totals }),
                        None => missing.push(budget),
                    }
                }
                "it has no whole answer of the current generation".to_owned()
            }
            Err(reason) => reason,
        };
        if missing.is_empty() {
            report.places.insert(Place::Cache);
            return;
        }
        if Instant::now() > deadline {
            let unchecked = |budget| format!("the cache, budget `{budget}`: {reason}");
            report.unchecked.extend(missing.iter().map(unchecked));
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The cache's totals of budgets, in their order: of the current generation, or none.
async fn read_cache(
    parts: &AuditParts,
    generation: &GenerationRecord,
    budgets: &[BudgetId],
) -> Result<Vec<Option<CombinedTotals>>, String> {
    let Some(cache) = &parts.cache else { return Ok(vec![None; budgets.len()]) };
    let totals = cache.read(budgets).await.map_err(|error| error.to_string())?;
    let count = generation.partitions.get() as usize;
    let is_whole = |totals: &CombinedTotals| {
        totals.generation == generation.generation && totals.positions.len() == count
    };
    Ok(totals.into_iter().map(|totals| totals.filter(is_whole)).collect())
}

struct Api<'a> {
    client: &'a reqwest::Client,
    url: &'a str,
}

/// As much of an answer as is compared.
#[derive(Deserialize)]
struct Answer {
    people: u64,
    version: String,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Category {
    total_basis_points: u64,
    distribution: Vec<u64>,
}

/// An answer that has no numbers, by the budget's own rules.
#[derive(Deserialize)]
struct Withheld {
    #[serde(rename = "withheld")]
    _reason: serde::de::IgnoredAny,
}

impl Api<'_> {
    /// What it shows of a budget; `None` if it may not show anything.
    async fn look(
        &self,
        parts: &AuditParts,
        generation: &GenerationRecord,
        budget: &BudgetId,
    ) -> Result<Option<CombinedTotals>, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reason = match self.ask(budget).await {
                Ok(None) => return Ok(None),
                Ok(Some(answer)) => {
                    let known = positions_of(parts, generation, budget, &answer.version).await;
                    match known.map_err(|error| error.to_string())? {
                        Some(positions) => {
                            return answer.into_totals(generation, positions).map(Some);
                        }
                        None => format!("nothing else is at its version {} now", answer.version),
                    }
                }
                Err(reason) => reason,
            };
            if Instant::now() > deadline {
                return Err(reason);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, budget: &BudgetId) -> Result<Option<Answer>, String> {
        let url = format!("{}/v1/budgets/{budget}/aggregate?include=distribution", self.url);
        let failed = |error: reqwest::Error| error.to_string();
        let answer = self.client.get(url).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        if serde_json::from_slice::<Withheld>(&body).is_ok() {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&body);
        parsed.map(Some).map_err(|error| format!("it answers what cannot be read: {error}"))
    }
}

/// The positions of which a version is made, if the cache or the store is at them now.
async fn positions_of(
    parts: &AuditParts,
    generation: &GenerationRecord,
    budget: &BudgetId,
    version: &str,
) -> Result<Option<Vec<Position>>, AuditError> {
    let is_it = |totals: &CombinedTotals| AggregateVersion::of(totals).to_string() == version;
    let budgets = std::slice::from_ref(budget);
    let cached = read_cache(parts, generation, budgets).await.unwrap_or_default();
    if let Some(totals) = cached.into_iter().flatten().find(is_it) {
        return Ok(Some(totals.positions));
    }
    let (number, count) = (generation.generation, generation.partitions);
    let summaries =
        again(async || Ok(parts.store.summaries(number, count, budgets).await?)).await?;
    let merged = summaries.into_iter().flatten();
    let stored = merged.filter_map(|parts| CombinedTotals::merge(number, count, &parts).ok());
    Ok(stored.into_iter().find(is_it).map(|totals| totals.positions))
}

impl Answer {
    fn into_totals(
        self,
        generation: &GenerationRecord,
        positions: Vec<Position>,
    ) -> Result<CombinedTotals, String> {
        let category = |category: Category| {
            let people_by_percent =
                category.distribution.try_into().map_err(|counts: Vec<u64>| {
                    format!("a distribution of {} counts, not {DISTRIBUTION_BINS}", counts.len())
                })?;
            Ok(CategoryTotals { basis_points: category.total_basis_points, people_by_percent })
        };
        Ok(CombinedTotals {
            generation: generation.generation,
            positions,
            people: self.people,
            updated_at_ms: 0,
            categories: self.categories.into_iter().map(category).collect::<Result<_, String>>()?,
        })
    }
}
