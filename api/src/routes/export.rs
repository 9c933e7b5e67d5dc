//! `GET /v1/budgets/{budget}/export`: everyone's allocation, without who they are, as it was published last.
//!
//! Nothing is exported for whoever asks: who has everyone's allocation from just before and just after somebody submitted
//! knows what that person said. When one is published is decided by an operator, who asks for the job. What is withheld of
//! the results is withheld here.
//!
//! A file is looked for and handed out, in pieces, to so many at once; a reader who takes nothing is left by the server.

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
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;
use schemas::export::Manifest;
use schemas::job::{ExportFormat, ExportFormatFault};
use storage::exports::{Exports, Published};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::conditional::has_already;
use super::respond::{REVALIDATE, quoted};
use super::{Api, RETRY_AFTER};
use crate::answer::{Withheld, withheld};

const PIECE_BYTES: usize = 64 * 1024;
/// How long it may take to find the newest export.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
const POSITIONS: HeaderName = HeaderName::from_static("allocator-positions");
const VERSION: HeaderName = HeaderName::from_static("allocator-version");
const GENERATION: HeaderName = HeaderName::from_static("allocator-generation");
const PEOPLE: HeaderName = HeaderName::from_static("allocator-people");

/// Where published exports are handed out, to so many readers at once.
pub struct Downloads {
    exports: Exports,
    readers: Arc<Semaphore>,
    reading: IntGauge,
}

/// A reader's place.
struct Place {
    reading: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reading.dec();
    }
}

impl Downloads {
    /// Out of this folder; `reading` counts the readers.
    pub fn new(exports: Exports, max_readers: usize, reading: IntGauge) -> Self {
        let readers = Semaphore::new(max_readers.min(Semaphore::MAX_PERMITS));
        Self { exports, readers: Arc::new(readers), reading }
    }

    /// The newest one, and the place from which it is read. A folder that hangs has as many threads as there are places.
    async fn newest(
        &self,
        budget: &Budget,
        format: ExportFormat,
    ) -> Result<(Option<Published>, Place), Problem> {
        let (exports, id, place) = (self.exports.clone(), budget.id.clone(), self.enter()?);
        let looking =
            tokio::task::spawn_blocking(move || Ok((exports.newest(&id, format)?, place)));
        let newest = tokio::time::timeout(LOOK_PATIENCE, looking).await;
        let newest = newest
            .map_err(io::Error::from)
            .and_then(|looked| looked.map_err(io::Error::from).flatten());
        newest.map_err(|error| {
            tracing::warn!(%error, budget = budget.id.as_str(), "published exports cannot be read");
            Problem::new(ProblemKind::Unavailable)
                .detail("the exports cannot be read now")
                .retry_after(RETRY_AFTER)
        })
    }

    fn enter(&self) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| {
            Problem::new(ProblemKind::Unavailable)
                .detail("too many exports are being read at once")
                .retry_after(RETRY_AFTER)
        })?;
        self.reading.inc();
        Ok(Place { reading: self.reading.clone(), _permit: permit })
    }
}

impl Api {
    /// Whether the results are withheld now. Where no tier answers, what was so when the export was made has to do.
    async fn withholds(&self, budget: &Budget) -> bool {
        let Some(slot) = self.reader.slot(budget.id.as_str()) else { return false };
        self.reader.read(&slot).await.is_ok_and(|reading| reading.shown.answer.is_withheld())
    }
}

pub(super) async fn of_budget(
    State(api): State<Arc<Api>>,
    Path(budget): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let format = format(&query)?;
    let (published, place) = api.downloads.newest(budget, format).await?;
    let Published { manifest, file } = published.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound).detail(format!(
            "no export of this budget is published as {format}; an operator publishes one: `POST /v1/admin/jobs` with \
             {{\"kind\": \"export\", \"budget\": \"{}\", \"format\": \"{format}\", \"publish\": true}}",
            budget.id
        ))
    })?;
    if let Some(why) = withheld(budget, manifest.facts.people, Timestamp::now()) {
        let detail = match why {
            Withheld::AfterClose(until) => {
                format!("the results of this budget are shown once it has closed, at {until}")
            }
            Withheld::MinimumPeople => {
                "too few people had taken part when the export was made".to_owned()
            }
        };
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    if api.withholds(budget).await {
        let detail = "the results of this budget are withheld now";
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    let headers = headers(&manifest, &budget.id.to_string());
    let etag = quoted(&manifest.sha256);
    if has_already(request.headers(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let body = Body::from_stream(pieces(file.into(), manifest.bytes, place));
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
            .detail("the query does not say how the export is to be written")
            .fault("format", format!("{required}{ExportFormatFault}"))
    })
}

/// What is said about the file.
fn headers(manifest: &Manifest, budget: &str) -> HeaderMap {
    let (format, facts) = (manifest.format, &manifest.facts);
    let media_type = match format {
        ExportFormat::Csv => "text/csv; charset=utf-8; header=present",
        ExportFormat::Ndjson => "application/x-ndjson",
        ExportFormat::Pb => "text/plain; charset=utf-8",
        ExportFormat::Parquet => "application/vnd.apache.parquet",
    };
    let positions: Vec<String> = facts.positions.iter().map(ToString::to_string).collect();
    // Slugs, numbers and hexadecimal: visible ASCII, all of it.
    let texts = [
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{budget}.{format}\"")),
        (POSITIONS, positions.join(", ")),
        (VERSION, manifest.version.clone()),
        (GENERATION, manifest.generation.to_string()),
        (PEOPLE, facts.people.to_string()),
        (LAST_MODIFIED, http_date(manifest.exported_at).unwrap_or_default()),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut headers: HeaderMap =
        texts.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ETAG, quoted(&manifest.sha256));
    headers.insert(CACHE_CONTROL, REVALIDATE);
    headers
}

/// A date as HTTP writes it.
fn http_date(at: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}

/// The file's bytes: as many as there are said to be.
fn pieces(
    file: tokio::fs::File,
    bytes: u64,
    place: Place,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file.take(bytes), place), |(mut file, place)| async move {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), (file, place))))
    })
}
