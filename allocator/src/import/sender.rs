//! The second pass over a file: sends its entries to the server with several concurrent workers.
//!
//! All entries of a person go through one worker. A worker has one batch in flight, and a batch holds each person at
//! most once. So one person's submissions arrive in the order of the file even after retries, and the last one wins.
//!
//! A dry run is the same pass with a destination that accepts everything.

use std::collections::HashSet;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ballot::IdSource;
use super::entries::{Entries, ImportFile};
use super::error::ImportError;
use super::file::{FileIdentity, FileReadError};
use super::progress::{ImportProgress, SentEntry};
use super::server::{BATCH_MAX_BYTES, BATCH_MAX_ITEMS, Budget, ItemOutcome, Server};
use super::totals::Effect;

/// An entry that is ready to send.
struct Item {
    entry: SentEntry,
    person_hash: u64,
    json: String,
}

/// Where entries are sent to.
pub enum Destination {
    /// A budget of a server.
    Budget {
        /// The server.
        server: Box<Server>,
        /// Id of the budget.
        id: BudgetId,
        /// Whether this import created the budget.
        budget: Budget,
    },
    /// Nowhere: every entry counts as accepted.
    DryRun,
}

impl Destination {
    /// Sends items and returns their final outcomes in order.
    async fn submit(&self, items: &[String]) -> Result<Vec<ItemOutcome>, ImportError> {
        match self {
            Self::Budget { server, id, budget } => server.submit(id, *budget, items).await,
            Self::DryRun => Ok(vec![ItemOutcome::Accepted; items.len()]),
        }
    }
}

/// Sends the entries of a file.
pub struct Sender {
    /// Where to send them.
    pub destination: Destination,
    /// Counts the outcomes.
    pub progress: Arc<ImportProgress>,
    /// Stops the workers after their batch in flight.
    pub stop: CancellationToken,
}

impl Sender {
    /// Reads the file to its end and sends every entry. `identity` is the file's identity from the first pass.
    ///
    /// # Errors
    /// The first failure. Outcomes before it are counted.
    pub async fn send_all(
        self,
        file: ImportFile,
        identity: FileIdentity,
        concurrency: usize,
    ) -> Result<(), SendError> {
        let this = Arc::new(self);
        // Cancelled by the first failure, so that reader and workers end too.
        let halt = this.stop.child_token();
        let mut channels = Vec::new();
        let mut workers = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (sender, items) = mpsc::channel(BATCH_MAX_ITEMS);
            channels.push(sender);
            let (this, halt) = (Arc::clone(&this), halt.clone());
            workers.spawn(async move { this.run_worker(items, &halt).await });
        }
        let (progress, reader_halt) = (Arc::clone(&this.progress), halt.clone());
        let reader = tokio::task::spawn_blocking(move || {
            let read = distribute(&file, identity, &channels, &progress, &reader_halt);
            if read.is_err() {
                reader_halt.cancel();
            }
            read
        });

        let mut first_failure = Ok(());
        while let Some(joined) = workers.join_next().await {
            if let Err(failure) = joined.map_err(SendError::from).flatten() {
                halt.cancel();
                first_failure = first_failure.and(Err(failure));
            }
        }
        // Without workers the reader ends at its next entry. A file system that hangs must not hold up a stop.
        let read = match this.stop.run_until_cancelled(reader).await {
            Some(joined) => joined.map_err(SendError::from).flatten(),
            None => Ok(()),
        };
        first_failure = first_failure.and(read);
        // Stopped workers and readers return no error: the stop is the reason then.
        if first_failure.is_ok() && this.stop.is_cancelled() {
            return Err(ImportError::Stopped.into());
        }
        first_failure
    }

    async fn run_worker(
        &self,
        mut items: mpsc::Receiver<Item>,
        halt: &CancellationToken,
    ) -> Result<(), SendError> {
        let mut next = None;
        loop {
            let batch = tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(()),
                batch = next_batch(&mut items, &mut next) => batch,
            };
            if batch.json.is_empty() {
                return Ok(());
            }
            let outcomes = self.destination.submit(&batch.json).await?;
            for (entry, outcome) in batch.entries.into_iter().zip(outcomes) {
                self.progress.record(entry, outcome);
            }
        }
    }
}

#[derive(Default)]
struct Batch {
    entries: Vec<SentEntry>,
    json: Vec<String>,
    bytes: usize,
    people: HashSet<u64>,
}

impl Batch {
    fn fits(&self, item: &Item) -> bool {
        self.json.is_empty()
            || (self.json.len() < BATCH_MAX_ITEMS
                && self.bytes + item.json.len() < BATCH_MAX_BYTES
                && !self.people.contains(&item.person_hash))
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.json.len() + 1;
        self.people.insert(item.person_hash);
        self.entries.push(item.entry);
        self.json.push(item.json);
    }
}

/// Fills the next batch; empty at the end. `next` keeps the first item that did not fit.
async fn next_batch(items: &mut mpsc::Receiver<Item>, next: &mut Option<Item>) -> Batch {
    let mut batch = Batch::default();
    if let Some(item) = next.take() {
        batch.push(item);
    }
    while let Some(item) = items.recv().await {
        if !batch.fits(&item) {
            *next = Some(item);
            break;
        }
        batch.push(item);
    }
    batch
}

/// Reads entries to the end of the file, or until `halt`, and passes each to its person's worker.
fn distribute(
    file: &ImportFile,
    identity: FileIdentity,
    workers: &[mpsc::Sender<Item>],
    progress: &ImportProgress,
    halt: &CancellationToken,
) -> Result<(), SendError> {
    let mut entries = Entries::open(file)?;
    let categories = entries.source.categories().to_vec();
    let has_unique_people = entries.source.has_unique_people();
    while let Some(entry) = entries.next_entry()? {
        if halt.is_cancelled() {
            return Ok(());
        }
        let named = match entry {
            Ok(named) => named,
            Err(entry) => {
                progress.reject(entry);
                continue;
            }
        };
        let (is_repeat, ballot) = (named.is_repeat, named.ballot);
        let json = ballot.to_json(identity, &categories);
        let person_hash = ballot.person_hash();
        let person = if has_unique_people { None } else { ballot.person_digest() };
        let is_named_by_content = matches!(ballot.id_source, IdSource::Content { .. });
        let effect = (!is_repeat).then_some(Effect { person, allocation: ballot.allocation });
        let entry = SentEntry { line: ballot.line, effect, is_named_by_content };
        let worker = person_hash.checked_rem(workers.len() as u64).unwrap_or_default() as usize;
        match workers.get(worker) {
            Some(worker) if worker.blocking_send(Item { entry, person_hash, json }).is_ok() => {}
            // The worker ended early and reports the reason itself.
            _ => return Ok(()),
        }
    }
    if entries.source.identity() == identity { Ok(()) } else { Err(SendError::FileChanged) }
}

/// Why the import is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The server failed, or the user stopped the import.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The file cannot be read to its end.
    #[error(transparent)]
    Read(#[from] FileReadError),
    /// The content differs from the first pass.
    #[error("the file changed during the import")]
    FileChanged,
    /// A worker panicked.
    #[error("an import worker failed: {0}")]
    Task(#[from] JoinError),
}
