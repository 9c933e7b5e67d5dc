//! The second pass over a file: sends its entries to the server with several concurrent workers.
//!
//! All entries of a person go through one worker. A worker has one batch in flight, and a batch holds each person at
//! most once. So one person's submissions arrive in the order of the file even after retries, and the last one wins.

use std::collections::HashSet;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::ImportError;
use super::file::{FileIdentity, FileReadError};
use super::formats::Source;
use super::progress::ImportProgress;
use super::server::{BATCH_MAX_BYTES, BATCH_MAX_ITEMS, Budget, Server};

/// An entry that is ready to send.
struct Item {
    line: u64,
    person_hash: u64,
    json: String,
}

/// Sends the entries of a file into one budget.
pub struct Sender {
    /// The server to send to.
    pub server: Server,
    /// Id of the budget.
    pub id: BudgetId,
    /// Whether this import created the budget.
    pub budget: Budget,
    /// Counts the outcomes.
    pub progress: Arc<ImportProgress>,
    /// Stops the workers after their batch in flight.
    pub stop: CancellationToken,
}

impl Sender {
    /// Reads the source to its end and sends every entry. `identity` is the file's identity from the first pass.
    ///
    /// # Errors
    /// The first failure of a worker. Outcomes before it are counted.
    pub async fn send_all(
        self,
        source: Source,
        identity: FileIdentity,
        concurrency: usize,
    ) -> Result<(), SendError> {
        let this = Arc::new(self);
        // Cancelled by the first failure, so that the other workers end too.
        let halt = this.stop.child_token();
        let mut workers = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (sender, items) = mpsc::channel(BATCH_MAX_ITEMS);
            workers.push(sender);
            let (this, halt) = (Arc::clone(&this), halt.clone());
            tasks.spawn(async move { this.run_worker(items, &halt).await });
        }
        let progress = Arc::clone(&this.progress);
        let reader_halt = halt.clone();
        tasks.spawn_blocking(move || {
            distribute(source, identity, &workers, &progress, &reader_halt)
        });

        let mut first_failure = Ok(());
        while let Some(joined) = tasks.join_next().await {
            if let Err(failure) = joined.map_err(SendError::from).flatten() {
                halt.cancel();
                if first_failure.is_ok() {
                    first_failure = Err(failure);
                }
            }
        }
        // A halted worker returns no error: the stop is the reason then.
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
            let outcomes = self.server.submit(&self.id, self.budget, &batch.json).await?;
            for (line, outcome) in batch.lines.into_iter().zip(outcomes) {
                self.progress.record(line, outcome);
            }
        }
    }
}

#[derive(Default)]
struct Batch {
    lines: Vec<u64>,
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
        self.lines.push(item.line);
        self.bytes += item.json.len() + 1;
        self.people.insert(item.person_hash);
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
    mut source: Source,
    identity: FileIdentity,
    workers: &[mpsc::Sender<Item>],
    progress: &ImportProgress,
    halt: &CancellationToken,
) -> Result<(), SendError> {
    let categories = source.categories().to_vec();
    while let Some(entry) = source.next_ballot()? {
        if halt.is_cancelled() {
            return Ok(());
        }
        let ballot = match entry {
            Ok(ballot) => ballot,
            Err(entry) => {
                progress.reject(entry);
                continue;
            }
        };
        let item = Item {
            line: ballot.line,
            person_hash: ballot.person_hash(),
            json: ballot.to_json(identity, &categories),
        };
        let worker =
            item.person_hash.checked_rem(workers.len() as u64).unwrap_or_default() as usize;
        match workers.get(worker) {
            Some(worker) if worker.blocking_send(item).is_ok() => {}
            // The worker ended early and reports the reason itself.
            _ => return Ok(()),
        }
    }
    if source.identity() == identity { Ok(()) } else { Err(SendError::FileChanged) }
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
