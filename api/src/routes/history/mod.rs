//! `GET /v1/budgets/{budget}/history`: people and averages at full minutes, hours or days.
//!
//! While a budget's results are withheld, its history is the same answer as its aggregate. Instants at which fewer
//! people had taken part than the budget's minimum stay hidden also later.

mod body;
mod query;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LINK, VARY};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use runtime::clock::now_ms;
use runtime::http::{ChargedBody, prefers};
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, InstantTotals};

use super::response::{cacheable, note_surrogate_key, tagged};
use super::{ApiState, no_answer};
use crate::answer::{Answer, surrogate_key};
use crate::history::HistorySection;
use crate::no_answer::NoAnswer;
use crate::rfc3339::rfc3339_seconds;
pub(super) use query::step_of_span;
use query::{Format, HistoryPage, HistoryQuery};

const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/history",
    tag = "results",
    operation_id = "getHistory",
    summary = "Read people and averages over time",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("from" = Option<String>, Query, format = DateTime, description = "The first instant (RFC 3339)"),
        ("to" = Option<String>, Query, format = DateTime, description = "The last instant, included (RFC 3339)"),
        ("step" = Option<String>, Query, pattern = "^(minute|hour|day)$",
            description = "`minute`, `hour` or `day`; by the span if it is missing"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1_000, description = "Maximum number of points of the answer"),
        ("format" = Option<String>, Query, pattern = "^(json|csv)$", description = "`json` or `csv`, before `Accept`"),
    ),
    responses(
        (status = 200, description = "The points, or why results are withheld", content(
            (ref("#/components/schemas/History") = "application/json"),
            (String = "text/csv"),
        )),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let query = HistoryQuery::parse(&parts.uri)?;
    if let Some(withheld) = api.withheld_answer(budget).await? {
        let mut response = cacheable(&parts.headers, withheld.plain());
        note_surrogate_key(response.headers_mut(), surrogate_key(&budget.id));
        return Ok(response);
    }
    let page = query.page(now_ms(), api.histories.max_instants().await);
    let (step, instants) = (page.step, page.instants.clone());
    let section = HistorySection { budget: budget.id.clone(), step, instants };
    let points =
        api.read_history(budget, &section).await.map_err(|error| no_answer(error, None))?;
    let points = shown_points(budget, &points);
    let format =
        query.format.unwrap_or(match prefers(&parts.headers, "text/csv", "application/json") {
            true => Format::Csv,
            false => Format::Json,
        });
    respond(&parts.headers, budget, &page, &points, format)
}

impl ApiState {
    /// Returns the answer of the aggregate if the results are withheld by the current definition.
    async fn withheld_answer(&self, budget: &Budget) -> Result<Option<Answer>, Problem> {
        let entry = self.aggregates.entry(budget.id.as_str());
        let entry = entry.ok_or_else(|| self.no_such_budget(&[budget.id.as_str()]))?;
        let reading = match self.aggregates.read_memory(&entry) {
            Some(reading) => reading,
            None => {
                let reading = self.aggregates.read(&entry).await;
                reading.map_err(|reason| no_answer(reason, None))?
            }
        };
        let answer = reading.aged.answer;
        // The answer in memory may be of an earlier definition, which withheld less.
        let (totals, provenance) = (Arc::clone(answer.totals()), answer.provenance());
        let current = Answer::new(Arc::new(budget.clone()), totals, provenance, Timestamp::now());
        let current = current.map_err(|_| no_answer(NoAnswer::Unavailable, None))?;
        Ok(current.is_withheld().then_some(current))
    }

    /// Reads a section of a budget's history, whose results are not withheld now.
    ///
    /// # Errors
    /// When it cannot be read, or does not fit the budget's definition.
    pub(super) async fn read_history(
        &self,
        budget: &Budget,
        section: &HistorySection,
    ) -> Result<Arc<Vec<InstantTotals>>, NoAnswer> {
        if section.instants.is_empty() {
            return Ok(Arc::default());
        }
        let points = self.histories.read(section).await?;
        let wanted = budget.categories.len();
        if points.iter().any(|point| point.totals.basis_points.len() != wanted) {
            tracing::error!(
                budget = %budget.id,
                expected = wanted,
                "history has a different number of categories than the budget"
            );
            return Err(NoAnswer::Unavailable);
        }
        Ok(points)
    }
}

/// Returns the points at which enough people had taken part.
pub(super) fn shown_points<'a>(
    budget: &Budget,
    points: &'a [InstantTotals],
) -> Vec<&'a InstantTotals> {
    let minimum_people = if budget.minimum_people > 1 { budget.minimum_people } else { 0 };
    points.iter().filter(|point| point.totals.people >= minimum_people).collect()
}

fn respond(
    request: &HeaderMap,
    budget: &Budget,
    page: &HistoryPage,
    points: &[&InstantTotals],
    format: Format,
) -> Result<Response, Problem> {
    let body = match format {
        Format::Json => {
            body::json(budget, page, points).map_err(|_| Problem::new(ProblemKind::Internal))?
        }
        Format::Csv => body::csv(budget, page, points),
    };
    let mut response = cacheable(request, &tagged(body));
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Some(link) = next_link(budget, page, format) {
        headers.insert(LINK, link);
    }
    if format == Format::Csv {
        headers.insert(CONTENT_TYPE, CSV);
        let name = format!("attachment; filename=\"{}-{}.csv\"", budget.id, page.step);
        if let Ok(disposition) = HeaderValue::try_from(name) {
            headers.insert(CONTENT_DISPOSITION, disposition);
        }
    }
    note_surrogate_key(headers, surrogate_key(&budget.id));
    response.extensions_mut().insert(ChargedBody);
    Ok(response)
}

/// Returns the link to the next page, which CSV has no other place for.
fn next_link(budget: &Budget, page: &HistoryPage, format: Format) -> Option<HeaderValue> {
    let from = rfc3339_seconds(page.next?.at_ms(page.step))?;
    let (step, limit) = (page.step, page.instants.end.0 - page.instants.start.0);
    let to = page.to.map(|to| format!("&to={to}")).unwrap_or_default();
    let format = if format == Format::Csv { "&format=csv" } else { "" };
    let id = &budget.id;
    let link = format!(
        "</v1/budgets/{id}/history?step={step}&from={from}{to}&limit={limit}{format}>; rel=\"next\""
    );
    HeaderValue::try_from(link).ok()
}
