//! `GET /v1/budgets/{budget}/export`: the newest published export of all allocations, without person ids.
//!
//! Exports are never made on request: the difference between two exports, from just before and just after a person
//! submitted, would reveal that person's allocation. An operator decides when an export is published, by submitting a
//! job. While a budget's results are withheld, its exports are withheld as well; and until they are final, if they move
//! in steps.
//!
//! Files are streamed to a limited number of readers (`downloads`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use runtime::http::{has_already, quoted_etag};
use runtime::problem::{Problem, ProblemKind};
use schemas::export::Manifest;
use schemas::job::{ExportFormat, ExportFormatFault};
use schemas::{Budget, ResultsVisibility};
use storage::exports::PublishedExport;

use super::response::REVALIDATE;
use super::{ApiState, RETRY_AFTER, no_answer};
use crate::answer::{Withheld, withheld};
use crate::downloads::{self, DownloadError, NoPermit};
use crate::no_answer::NoAnswer;

const POSITIONS: HeaderName = HeaderName::from_static("allocator-positions");
const VERSION: HeaderName = HeaderName::from_static("allocator-version");
const GENERATION: HeaderName = HeaderName::from_static("allocator-generation");
const PEOPLE: HeaderName = HeaderName::from_static("allocator-people");
const ANNULLED: HeaderName = HeaderName::from_static("allocator-annulled");

impl ApiState {
    /// Returns whether the budget's results are withheld now, or are not final and move in steps, which an export would
    /// not keep. When no tier answers: whether that depends on their being final, which is unknown then.
    ///
    /// # Errors
    /// When a tier could answer but is limited now, which readers may have caused.
    async fn withholds(&self, budget: &Budget) -> Result<bool, Problem> {
        let Some(entry) = self.aggregates.entry(budget.id.as_str()) else { return Ok(false) };
        let moves_in_steps = !budget.publish_step().is_one();
        match self.aggregates.read(&entry).await {
            Ok(reading) => {
                let answer = &reading.aged.answer;
                Ok(answer.is_withheld() || (moves_in_steps && !answer.totals().is_final()))
            }
            Err(limited @ (NoAnswer::Overloaded | NoAnswer::TooManyPeople { .. })) => {
                Err(no_answer(limited, None))
            }
            Err(_) => Ok(moves_in_steps || budget.results == ResultsVisibility::AfterClose),
        }
    }
}

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/export",
    tag = "results",
    operation_id = "getExport",
    summary = "Download the export that was published last",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("format" = String, Query, description = "`csv`, `ndjson`, `pb` or `parquet`",
            pattern = "^(csv|ndjson|pb|parquet)$"),
    ),
    responses(
        (status = 200, description = "Everyone's allocation without identities", content(
            (String = "text/csv"), (String = "application/x-ndjson"), (String = "text/plain"),
            (String = "application/vnd.apache.parquet")
        )),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let format = format(&query)?;
    let published = api.downloads.open_newest(&budget.id, format, api.client(&parts)).await;
    let published = published.map_err(|error| cannot_download(&error, budget))?;
    let (PublishedExport { manifest, file }, permit) = published.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound).detail(format!(
            "no export of this budget is published as {format}; an operator publishes one with `POST /v1/admin/jobs` and \
             {{\"kind\": \"export\", \"budget\": \"{}\", \"format\": \"{format}\", \"publish\": true}}",
            budget.id
        ))
    })?;
    // Whether the results are final is decided below.
    let now = Timestamp::now();
    let has_closed = budget.closes_at.is_some_and(|closes_at| closes_at <= now);
    if let Some(reason) = withheld(budget, manifest.summary.people, has_closed, now) {
        let detail = match reason {
            Withheld::AfterClose(until) | Withheld::Counting(until) => {
                format!("the results of this budget are shown once it has closed, at {until}")
            }
            Withheld::MinimumPeople => {
                "too few people had taken part when the export was made".to_owned()
            }
            Withheld::UnknownRule => {
                "a newer release wrote when the results of this budget are shown".to_owned()
            }
        };
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    if api.withholds(budget).await? {
        let detail = match budget.publish_step().is_one() {
            true => "the results of this budget are withheld now",
            false => {
                "the exports of this budget are withheld until its results, which move in steps, are final"
            }
        };
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    let headers = headers(&manifest, &budget.id.to_string());
    let etag = quoted_etag(&manifest.sha256);
    if has_already(&parts.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let body = Body::from_stream(downloads::stream(file.into(), manifest.bytes, permit));
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(manifest.bytes));
    Ok(response)
}

fn cannot_download(error: &DownloadError, budget: &Budget) -> Problem {
    let (kind, detail) = match error {
        DownloadError::NoPermit(reason @ NoPermit::AllTaken) => {
            (ProblemKind::Unavailable, reason.to_string())
        }
        // Not 503, which a gateway tries again at another api.
        DownloadError::NoPermit(reason @ NoPermit::AllOfClientTaken) => {
            (ProblemKind::RateLimited, reason.to_string())
        }
        DownloadError::Io(error) => {
            tracing::warn!(%error, budget = budget.id.as_str(), "failed to read published exports");
            (ProblemKind::Unavailable, "the exports cannot be read now".to_owned())
        }
    };
    Problem::new(kind).detail(detail).retry_after(RETRY_AFTER)
}

fn format(query: &[(String, String)]) -> Result<ExportFormat, Problem> {
    let given = query.iter().find(|(name, _)| name == "format");
    let parsed = given.map(|(_, value)| value.parse());
    parsed.and_then(Result::ok).ok_or_else(|| {
        let required = if given.is_none() { "is required, and " } else { "" };
        Problem::new(ProblemKind::Malformed)
            .detail("the query does not name a valid export format")
            .fault("format", format!("{required}{ExportFormatFault}"))
    })
}

/// Builds the headers that describe the file.
fn headers(manifest: &Manifest, budget: &str) -> HeaderMap {
    let (format, summary) = (manifest.format, &manifest.summary);
    let media_type = match format {
        ExportFormat::Csv => "text/csv; charset=utf-8; header=present",
        ExportFormat::Ndjson => "application/x-ndjson",
        ExportFormat::Pb => "text/plain; charset=utf-8",
        ExportFormat::Parquet => "application/vnd.apache.parquet",
    };
    let positions: Vec<String> = summary.positions.iter().map(ToString::to_string).collect();
    // Slugs, numbers and hexadecimal: only visible ASCII.
    let texts = [
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{budget}.{format}\"")),
        (POSITIONS, positions.join(", ")),
        (VERSION, manifest.version.clone()),
        (GENERATION, manifest.generation.to_string()),
        (PEOPLE, summary.people.to_string()),
        (ANNULLED, summary.annulled.to_string()),
        (LAST_MODIFIED, http_date(manifest.exported_at).unwrap_or_default()),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut headers: HeaderMap =
        texts.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ETAG, quoted_etag(&manifest.sha256));
    headers.insert(CACHE_CONTROL, REVALIDATE);
    headers
}

/// Formats an HTTP date.
fn http_date(at: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}
