//! `/v1/admin/dead-letters`: dead letters and the decisions on them.
//!
//! These routes only read dead letters. A decision (replay or drop) is a job that a processor executes, so that it
//! takes effect once even if a process dies meanwhile.

mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{Position, RecordAddress};
use storage::log::dead_letters::{
    DeadLetterIndex, DeadLetterJournalOpener, DeadLetterRecord, DeadLetterRecordError,
    DeadLetterState, TrackedDeadLetter,
};
use storage::log::{DeadLetterJournal, ReadError};
use storage::open_error::OpenError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::jobs::{JobRequest, JobRoute};
use crate::registry::RegistryReader;
use crate::routes::RETRY_AFTER;
use view::{DeadLetterPageView, DeadLetterView, RecordBytesView};

/// How long one read of the journal may take: it is read from its beginning. A request reads at most twice, which
/// together is less than a gateway's timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(8);
/// Maximum concurrent reads of the journal; each reads the whole journal.
const MAX_CONCURRENT_READS: usize = 2;
/// Default and maximum number of dead letters per page.
const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1_000;

/// Reads dead letters, with a limit on concurrent reads.
#[derive(Clone)]
pub struct DeadLetterService {
    opener: Arc<dyn DeadLetterJournalOpener>,
    registry: RegistryReader,
    read_permits: Arc<Semaphore>,
}

impl DeadLetterService {
    /// Creates the service. `registry` names the log that holds the dead letters' bytes.
    pub fn new(opener: Arc<dyn DeadLetterJournalOpener>, registry: RegistryReader) -> Self {
        let read_permits = Arc::new(Semaphore::new(MAX_CONCURRENT_READS));
        Self { opener, registry, read_permits }
    }

    /// Opens the journal, if the limit on concurrent reads permits it.
    fn open_journal(&self) -> Result<OpenJournal, Problem> {
        let permit = Arc::clone(&self.read_permits)
            .try_acquire_owned()
            .map_err(|_| unavailable("too many requests are reading the dead letter journal"))?;
        let journal =
            self.opener.open_dead_letter_journal().map_err(|error| open_failed(&error))?;
        Ok(OpenJournal { journal, _permit: permit })
    }

    /// Reads one dead letter; a missing one is a problem.
    async fn dead_letter(&self, id: RecordAddress) -> Result<TrackedDeadLetter, Problem> {
        let open = self.open_journal()?;
        let read = DeadLetterIndex::read_one(open.journal.as_ref(), id);
        in_time(read).await?.map_err(read_failed)?.ok_or_else(not_found)
    }

    /// Reads the bytes of a dead letter's record.
    async fn record(
        &self,
        id: RecordAddress,
        dead_letter: &TrackedDeadLetter,
    ) -> Result<RecordBytesView, Problem> {
        let registry = self.registry.read().await.map_err(|error| {
            tracing::warn!(%error, "failed to read the generation registry");
            unavailable("the generation registry cannot be read now")
        })?;
        let active = registry.map(|overview| overview.registry.active.log);
        let Some(log) = active.filter(|log| log.number == id.log) else {
            // A repartition has replaced that log.
            return Ok(RecordBytesView::missing(&ReadError::Missing(Position(id.offset.0)).into()));
        };
        let log = self.opener.open_log_reader(&log).await.map_err(|error| open_failed(&error))?;
        match DeadLetterRecord::read(log.as_ref(), id, &dead_letter.meta).await {
            Ok(record) => Ok(RecordBytesView::of(&record)),
            Err(DeadLetterRecordError::Read(error @ ReadError::Unavailable(_))) => {
                Err(read_failed(error))
            }
            Err(missing) => Ok(RecordBytesView::missing(&missing)),
        }
    }
}

/// An open journal and the permit to read it.
struct OpenJournal {
    journal: Arc<dyn DeadLetterJournal>,
    _permit: OwnedSemaphorePermit,
}

#[utoipa::path(
    get,
    path = "/v1/admin/dead-letters",
    tag = "dead letters",
    operation_id = "listDeadLetters",
    summary = "A page of dead letters",
    params(
        ("after" = Option<String>, Query, description = "The `next` of the page before",
            pattern = r"^([0-9]{1,2}\.)?[0-9]{1,2}\.[0-9]{1,9}$"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Size of the page; default 100"),
    ),
    responses(
        (status = 200, description = "The page", body = DeadLetterPageView, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn list(
    State(service): State<DeadLetterService>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<DeadLetterPageView>, Problem> {
    let (after, limit) = page(&query)?;
    let open = service.open_journal()?;
    let read = DeadLetterIndex::read_page(open.journal.as_ref(), after, limit);
    let page = in_time(read).await?.map_err(read_failed)?;
    Ok(Json(DeadLetterPageView::of(&page)))
}

#[utoipa::path(
    get,
    path = "/v1/admin/dead-letters/{id}",
    tag = "dead letters",
    operation_id = "getDeadLetter",
    summary = "One dead letter with its bytes",
    params(
        ("id" = String, Path, description = "The dead letter's id: partition and offset", example = "3.1042"),
    ),
    responses(
        (status = 200, description = "The dead letter", body = DeadLetterView, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn one(
    State(service): State<DeadLetterService>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Problem> {
    let id = parse_id(&id)?;
    let dead_letter = service.dead_letter(id).await?;
    let record = in_time(service.record(id, &dead_letter)).await??;
    Ok(Json(DeadLetterView::with_record(id, &dead_letter, record)))
}

#[utoipa::path(
    post,
    path = "/v1/admin/dead-letters/{id}/replay",
    tag = "dead letters",
    operation_id = "replayDeadLetter",
    summary = "Append the record again",
    params(
        ("id" = String, Path, description = "The dead letter's id: partition and offset", example = "3.1042"),
        JobRequest,
    ),
    request_body(content = ref("#/components/schemas/ReplayOptions"), description = "Of the job",
        content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(super) async fn replay(
    State(service): State<DeadLetterService>,
    Path(id): Path<String>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    // The job checks the state again; an impossible decision is refused at once.
    let impossible = match service.dead_letter(id).await?.state {
        DeadLetterState::Dropped => "the dead letter has been dropped",
        DeadLetterState::Unrecognized => DECIDED_BY_A_NEWER_RELEASE,
        _ => return request.submit(JobRoute::ReplayDeadLetter(id)).await,
    };
    Err(Problem::new(ProblemKind::WrongState).detail(impossible))
}

#[utoipa::path(
    post,
    path = "/v1/admin/dead-letters/{id}/drop",
    tag = "dead letters",
    operation_id = "dropDeadLetter",
    summary = "Drop a dead letter",
    params(
        ("id" = String, Path, description = "The dead letter's id: partition and offset", example = "3.1042"),
        JobRequest,
    ),
    request_body(content = ref("#/components/schemas/JobOptions"), description = "Of the job", content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(super) async fn discard(
    State(service): State<DeadLetterService>,
    Path(id): Path<String>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let impossible = match service.dead_letter(id).await?.state {
        DeadLetterState::Replayed(copy) => format!("the dead letter has been replayed as {copy}"),
        DeadLetterState::Unrecognized => DECIDED_BY_A_NEWER_RELEASE.to_owned(),
        _ => return request.submit(JobRoute::DropDeadLetter(id)).await,
    };
    Err(Problem::new(ProblemKind::WrongState).detail(impossible))
}

const DECIDED_BY_A_NEWER_RELEASE: &str =
    "a newer release made a decision about the dead letter that this one does not know";

async fn in_time<T>(read: impl Future<Output = T>) -> Result<T, Problem> {
    let timed_out = |_| unavailable("the dead letters could not be read in time");
    timeout(READ_TIMEOUT, read).await.map_err(timed_out)
}

/// Parses where a page starts and how long it is.
fn page(query: &[(String, String)]) -> Result<(Option<RecordAddress>, usize), Problem> {
    let (mut after, mut limit) = (None, DEFAULT_PAGE_SIZE);
    let mut faults = Faults::default();
    for (name, value) in query {
        match name.as_str() {
            "after" => match value.parse() {
                Ok(id) => after = Some(id),
                Err(_) => {
                    faults.malformed("after", "must be a dead letter's id: partition.offset");
                }
            },
            "limit" => match value.parse() {
                Ok(wanted @ 1..=MAX_PAGE_SIZE) => limit = wanted,
                _ => faults.malformed("limit", format!("must be from 1 to {MAX_PAGE_SIZE}")),
            },
            _ => {}
        }
    }
    if faults.is_empty() {
        Ok((after, limit))
    } else {
        Err(faults.into_problem(ProblemKind::Malformed))
    }
}

/// Parses a dead letter's id. A malformed id belongs to no dead letter.
fn parse_id(text: &str) -> Result<RecordAddress, Problem> {
    text.parse().map_err(|_| not_found())
}

fn not_found() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("there is no such dead letter")
}

fn read_failed(error: ReadError) -> Problem {
    tracing::warn!(%error, "failed to read dead letters");
    unavailable("the log with the dead letters is unavailable")
}

fn open_failed(error: &OpenError) -> Problem {
    tracing::warn!(%error, "failed to open the dead letter journal");
    unavailable("the log with the dead letters is unavailable")
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable).detail(detail).retry_after(RETRY_AFTER)
}
