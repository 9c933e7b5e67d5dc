//! `GET /v1/budgets/{budget}/export`: the newest published export of all allocations, without person ids.
//!
//! Exports are never made on request: the difference between two exports, from just before and just after a person
//! submitted, would reveal that person's allocation. An operator decides when an export is published, by submitting a
//! job. While a budget's results are withheld, its exports are withheld as well.
//!
//! Files are streamed in chunks, to a limited number of readers; the HTTP server disconnects readers that stall.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use prometheus::IntGauge;
use runtime::http::{has_already, quoted_etag};
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;
use schemas::export::Manifest;
use schemas::job::{ExportFormat, ExportFormatFault};
use storage::exports::{Exports, PublishedExport};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::response::REVALIDATE;
use super::{ApiState, RETRY_AFTER};
use crate::answer::{Withheld, withheld};

const CHUNK_BYTES: usize = 64 * 1024;
/// How long finding the newest export may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const POSITIONS: HeaderName = HeaderName::from_static("allocator-positions");
const VERSION: HeaderName = HeaderName::from_static("allocator-version");
const GENERATION: HeaderName = HeaderName::from_static("allocator-generation");
const PEOPLE: HeaderName = HeaderName::from_static("allocator-people");

/// Opens published exports, with a limit on concurrent downloads.
pub struct Downloads {
    exports: Exports,
    permits: Arc<Semaphore>,
    in_progress: IntGauge,
}

/// Permission to download; released when dropped.
struct DownloadPermit {
    in_progress: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for DownloadPermit {
    fn drop(&mut self) {
        self.in_progress.dec();
    }
}

impl Downloads {
    /// Creates the downloads of a directory's exports; `in_progress` counts the running downloads.
    pub fn new(exports: Exports, max_downloads: usize, in_progress: IntGauge) -> Self {
        let permits = Semaphore::new(max_downloads.min(Semaphore::MAX_PERMITS));
        Self { exports, permits: Arc::new(permits), in_progress }
    }

    /// Opens the newest export. The permit is taken first, so a hanging file system blocks a limited number of threads.
    async fn newest(
        &self,
        budget: &Budget,
        format: ExportFormat,
    ) -> Result<(Option<PublishedExport>, DownloadPermit), Problem> {
        let (exports, id) = (self.exports.clone(), budget.id.clone());
        let permit = self.try_acquire()?;
        let lookup =
            tokio::task::spawn_blocking(move || Ok((exports.open_newest(&id, format)?, permit)));
        let newest = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
        let newest = newest
            .map_err(io::Error::from)
            .and_then(|found| found.map_err(io::Error::from).flatten());
        newest.map_err(|error| {
            tracing::warn!(%error, budget = budget.id.as_str(), "failed to read published exports");
            Problem::new(ProblemKind::Unavailable)
                .detail("the exports cannot be read now")
                .retry_after(RETRY_AFTER)
        })
    }

    fn try_acquire(&self) -> Result<DownloadPermit, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            Problem::new(ProblemKind::Unavailable)
                .detail("too many exports are being downloaded")
                .retry_after(RETRY_AFTER)
        })?;
        self.in_progress.inc();
        Ok(DownloadPermit { in_progress: self.in_progress.clone(), _permit: permit })
    }
}

impl ApiState {
    /// Returns whether the budget's results are withheld now; false when no tier answers.
    async fn withholds(&self, budget: &Budget) -> bool {
        let Some(slot) = self.aggregates.slot(budget.id.as_str()) else { return false };
        self.aggregates.read(&slot).await.is_ok_and(|reading| reading.aged.answer.is_withheld())
    }
}

pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let format = format(&query)?;
    let (published, permit) = api.downloads.newest(budget, format).await?;
    let PublishedExport { manifest, file } = published.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound).detail(format!(
            "no export of this budget is published as {format}; an operator publishes one with `POST /v1/admin/jobs` and \
             {{\"kind\": \"export\", \"budget\": \"{}\", \"format\": \"{format}\", \"publish\": true}}",
            budget.id
        ))
    })?;
    if let Some(reason) = withheld(budget, manifest.summary.people, Timestamp::now()) {
        let detail = match reason {
            Withheld::AfterClose(until) => {
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
    if api.withholds(budget).await {
        let detail = "the results of this budget are withheld now";
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    let headers = headers(&manifest, &budget.id.to_string());
    let etag = quoted_etag(&manifest.sha256);
    if has_already(request.headers(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let body = Body::from_stream(chunks(file.into(), manifest.bytes, permit));
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(manifest.bytes));
    Ok(response)
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

/// Streams the file's bytes, at most the manifest's number. Holds the permit until the stream ends.
fn chunks(
    file: tokio::fs::File,
    bytes: u64,
    permit: DownloadPermit,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file.take(bytes), permit), |(mut file, permit)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), (file, permit))))
    })
}
