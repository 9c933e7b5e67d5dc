//! What readers are shown, and the positions that it reflects.
//!
//! The cache says its positions. An api's answer says a version, which is made of them: it is matched with the positions
//! that the cache and the store are seen at meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use schemas::{
    AggregateVersion, BudgetId, CategoryTotals, CombinedTotals, DISTRIBUTION_BINS, Position, Roster,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{AuditError, AuditParts, Place, Report, again};

/// How long the cache may lack a budget.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an api may show nothing that could be compared.
const API_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at an api.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
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
    roster: &Roster,
    report: &mut Report,
) -> Result<Vec<Shown>, AuditError> {
    let budgets = report.budgets.clone();
    let mut shown = Vec::new();
    if parts.cache.is_some() {
        look_at_cache(parts, roster, &budgets, &mut shown, report).await;
    }
    if !parts.apis.is_empty() {
        let client = reqwest::Client::builder().timeout(API_TIMEOUT).build();
        let client = client.map_err(|error| AuditError::Wrong(error.to_string()))?;
        for url in &parts.apis {
            let api = Api { client: &client, url: url.trim_end_matches('/') };
            let place = Place::Api(url.clone());
            let (found, unchecked) = api.look(parts, roster, &budgets).await;
            if !found.is_empty() {
                report.places.insert(place.clone());
            }
            shown.extend(found.into_iter().map(|(budget, totals)| {
                let place = place.clone();
                Shown { place, budget, totals }
            }));
            let unchecked = unchecked.into_iter();
            report.unchecked.extend(
                unchecked.map(|(budget, reason)| format!("{place}, budget `{budget}`: {reason}")),
            );
        }
    }
    Ok(shown)
}

/// An emptied cache is whole again once every owner has published anew.
async fn look_at_cache(
    parts: &AuditParts,
    roster: &Roster,
    budgets: &BTreeSet<BudgetId>,
    shown: &mut Vec<Shown>,
    report: &mut Report,
) {
    let deadline = Instant::now() + PATIENCE;
    let mut missing: Vec<BudgetId> = budgets.iter().cloned().collect();
    loop {
        let reason = match read_cache(parts, roster, &missing).await {
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
    roster: &Roster,
    budgets: &[BudgetId],
) -> Result<Vec<Option<CombinedTotals>>, String> {
    let Some(cache) = &parts.cache else { return Ok(vec![None; budgets.len()]) };
    let totals = cache.read(budgets).await.map_err(|error| error.to_string())?;
    let count = roster.current.log.partitions.get() as usize;
    let is_whole =
        |totals: &CombinedTotals| totals.term == roster.term() && totals.positions.len() == count;
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

/// What an api shows of budgets, and why it is not known of others.
type Found = (Vec<(BudgetId, CombinedTotals)>, Vec<(BudgetId, String)>);

impl Api<'_> {
    /// What it shows of budgets, except of those of which it may not show anything. Versions come and go in milliseconds:
    /// any answer will do whose positions were seen, sooner or later.
    async fn look(
        &self,
        parts: &AuditParts,
        roster: &Roster,
        budgets: &BTreeSet<BudgetId>,
    ) -> Found {
        let deadline = Instant::now() + API_PATIENCE;
        let mut found = Vec::new();
        let mut waiting: Vec<Waiting> = budgets.iter().cloned().map(Waiting::new).collect();
        while !waiting.is_empty() && Instant::now() < deadline {
            if let Err(error) = see_positions(parts, roster, &mut waiting).await {
                waiting.iter_mut().for_each(|budget| budget.reason = error.to_string());
            }
            let mut still = Vec::new();
            for mut budget in waiting {
                if Instant::now() < deadline && budget.withheld(self.ask(&budget.id).await) {
                    continue;
                }
                match budget.matched(roster) {
                    Some(totals) => found.push((budget.id, totals)),
                    None => still.push(budget),
                }
            }
            waiting = still;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        (found, waiting.into_iter().map(|budget| (budget.id, budget.reason)).collect())
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

/// A budget of which no answer has been matched yet: what the api said, and the positions that were seen, by version.
struct Waiting {
    id: BudgetId,
    answers: HashMap<String, Answer>,
    seen: HashMap<String, Vec<Position>>,
    reason: String,
}

impl Waiting {
    fn new(id: BudgetId) -> Self {
        let reason = "it was not asked".to_owned();
        Self { id, answers: HashMap::new(), seen: HashMap::new(), reason }
    }

    /// Takes an answer in; whether it says that there is nothing to show.
    fn withheld(&mut self, answer: Result<Option<Answer>, String>) -> bool {
        match answer {
            Ok(None) => return true,
            Ok(Some(answer)) => {
                self.reason = format!("nothing else was at its version {}", answer.version);
                self.answers.insert(answer.version.clone(), answer);
            }
            Err(reason) => self.reason = reason,
        }
        false
    }

    /// An answer whose positions were seen.
    fn matched(&mut self, roster: &Roster) -> Option<CombinedTotals> {
        let version = self.answers.keys().find(|version| self.seen.contains_key(*version))?.clone();
        let (answer, positions) = (self.answers.remove(&version)?, self.seen.remove(&version)?);
        answer.into_totals(roster, positions).map_err(|reason| self.reason = reason).ok()
    }
}

/// The positions that the cache and the store are at now.
async fn see_positions(
    parts: &AuditParts,
    roster: &Roster,
    waiting: &mut [Waiting],
) -> Result<(), AuditError> {
    let budgets: Vec<BudgetId> = waiting.iter().map(|budget| budget.id.clone()).collect();
    // Who cannot be asked has nothing to say; the other one may.
    let cached = read_cache(parts, roster, &budgets).await.unwrap_or_default();
    let (number, count) = (roster.current.generation, roster.current.log.partitions);
    let stored =
        again(|| async { Ok(parts.store.summaries(number, count, &budgets).await?) }).await?;
    let stored = stored.into_iter().map(|parts| {
        parts.ok().and_then(|parts| CombinedTotals::merge(roster.term(), count, &parts).ok())
    });
    for totals in [cached, stored.collect()] {
        for (budget, totals) in waiting.iter_mut().zip(totals) {
            if let Some(totals) = totals {
                let version = AggregateVersion::of(&totals).to_string();
                budget.seen.insert(version, totals.positions);
            }
        }
    }
    Ok(())
}

impl Answer {
    fn into_totals(
        self,
        roster: &Roster,
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
            term: roster.term(),
            positions,
            people: self.people,
            updated_at_ms: 0,
            categories: self.categories.into_iter().map(category).collect::<Result<_, String>>()?,
        })
    }
}
