//! `/v1/admin/dead-letters`: records that could not be folded, and what becomes of them. They are looked at here; what is
//! decided about one is a job, which a processor does, so that a decision takes effect once whoever dies meanwhile.

mod shown;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{Position, Receipt};
use storage::log::letters::{
    Letter, LetterPlaces, LetterRecord, LetterRecordError, LetterState, Letters,
};
use storage::log::{LetterBook, ReadError};
use storage::opening::OpenError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::jobs::{Form, JobRequest};
use crate::roster::RosterReader;
use crate::routes::RETRY_AFTER;
use shown::{ShownLetter, ShownPage, ShownRecord};

/// How long one look may take: the book is read from its beginning. Two of them are less than a gateway waits.
const DEADLINE: Duration = Duration::from_secs(8);
/// So many look at once; each has the book read for itself.
const LOOKS_AT_ONCE: usize = 2;
/// Letters on a page, if nothing else is asked for, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Where dead letters are looked at, by few at once.
#[derive(Clone)]
pub struct LetterDesk {
    places: Arc<dyn LetterPlaces>,
    roster: RosterReader,
    turns: Arc<Semaphore>,
}

impl LetterDesk {
    /// At these places; the roster says which log has bytes of letters.
    pub fn new(places: Arc<dyn LetterPlaces>, roster: RosterReader) -> Self {
        Self { places, roster, turns: Arc::new(Semaphore::new(LOOKS_AT_ONCE)) }
    }

    /// Begins to look, if few others do.
    fn begin(&self) -> Result<Look, Problem> {
        let turn = Arc::clone(&self.turns).try_acquire_owned().map_err(|_| {
            unavailable("others look at dead letters now, and each look reads all of them")
        })?;
        let book = self.places.open_letter_book().map_err(|error| closed(&error))?;
        Ok(Look { book, _turn: turn })
    }

    /// One letter, which there has to be.
    async fn letter(&self, place: Receipt) -> Result<Letter, Problem> {
        let look = self.begin()?;
        let found = in_time(Letters::one(look.book.as_ref(), place)).await?.map_err(unread)?;
        found.ok_or_else(no_such_letter)
    }

    /// The bytes of a letter.
    async fn record(&self, place: Receipt, letter: &Letter) -> Result<ShownRecord, Problem> {
        let roster = self.roster.read().await.map_err(|error| {
            tracing::warn!(%error, "the generations cannot be read");
            unavailable("the store does not say which log there is")
        })?;
        let current = roster.map(|overview| overview.roster.current.log);
        let Some(log) = current.filter(|log| log.number == place.log) else {
            // That log was replaced by another since.
            return Ok(ShownRecord::gone(&ReadError::Missing(Position(place.offset.0)).into()));
        };
        let log = self.places.open_log_reader(&log).await.map_err(|error| closed(&error))?;
        match LetterRecord::read(log.as_ref(), place, &letter.put_away).await {
            Ok(record) => Ok(ShownRecord::of(&record)),
            Err(LetterRecordError::Read(error @ ReadError::Unavailable(_))) => Err(unread(error)),
            Err(gone) => Ok(ShownRecord::gone(&gone)),
        }
    }
}

/// Somebody looks.
struct Look {
    book: Arc<dyn LetterBook>,
    _turn: OwnedSemaphorePermit,
}

pub(super) async fn list(
    State(desk): State<LetterDesk>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<ShownPage>, Problem> {
    let (after, limit) = page(&query)?;
    let look = desk.begin()?;
    let page = in_time(Letters::page(look.book.as_ref(), after, limit)).await?.map_err(unread)?;
    Ok(Json(ShownPage::of(&page)))
}

pub(super) async fn one(
    State(desk): State<LetterDesk>,
    Path(id): Path<String>,
) -> Result<Json<ShownLetter>, Problem> {
    let place = parse_id(&id)?;
    let letter = desk.letter(place).await?;
    let record = in_time(desk.record(place, &letter)).await??;
    Ok(Json(ShownLetter::with_record(place, &letter, record)))
}

pub(super) async fn replay(
    State(desk): State<LetterDesk>,
    Path(id): Path<String>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let place = parse_id(&id)?;
    // Whoever does the job decides; what is in vain by now is said at once.
    if desk.letter(place).await?.state == LetterState::Dropped {
        return Err(Problem::new(ProblemKind::WrongState).detail("the letter has been dropped"));
    }
    request.ask(Form::ReplayDeadLetter(place)).await
}

pub(super) async fn discard(
    State(desk): State<LetterDesk>,
    Path(id): Path<String>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let place = parse_id(&id)?;
    if let LetterState::Replayed(copy) = desk.letter(place).await?.state {
        let detail = format!("the letter has been replayed as {copy}");
        return Err(Problem::new(ProblemKind::WrongState).detail(detail));
    }
    request.ask(Form::DropDeadLetter(place)).await
}

async fn in_time<T>(looking: impl Future<Output = T>) -> Result<T, Problem> {
    let late = |_| unavailable("the dead letters could not be read in time");
    timeout(DEADLINE, looking).await.map_err(late)
}

/// Where a page begins, and how long it is.
fn page(query: &[(String, String)]) -> Result<(Option<Receipt>, usize), Problem> {
    let (mut after, mut limit) = (None, PAGE);
    let mut faults = Faults::default();
    for (name, value) in query {
        match name.as_str() {
            "after" => match value.parse() {
                Ok(place) => after = Some(place),
                Err(_) => faults.malformed("after", "must be a letter's id: partition.offset"),
            },
            "limit" => match value.parse() {
                Ok(wanted @ 1..=PAGE_MAX) => limit = wanted,
                _ => faults.malformed("limit", format!("must be from 1 to {PAGE_MAX}")),
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

/// What is no id is the id of no letter.
fn parse_id(text: &str) -> Result<Receipt, Problem> {
    text.parse().map_err(|_| no_such_letter())
}

fn no_such_letter() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("there is no such dead letter")
}

fn unread(error: ReadError) -> Problem {
    tracing::warn!(%error, "the dead letters cannot be read");
    unavailable("the log, which has the dead letters, does not answer")
}

fn closed(error: &OpenError) -> Problem {
    tracing::warn!(%error, "the dead letters cannot be opened");
    unavailable("the log, which has the dead letters, does not answer")
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable).detail(detail).retry_after(RETRY_AFTER)
}
