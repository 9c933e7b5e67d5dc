//! The second reading of a file: its entries on their way to the server, in lanes.
//!
//! All that a person says goes through one lane, which has one batch under way at a time and a person at most once in a
//! batch. So whatever is sent again, one person's submissions arrive in the order of the file, and the last one wins.

use std::collections::HashSet;
use std::sync::Arc;

use schemas::BudgetId;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::ImportError;
use super::file::{FileIdentity, ReadError};
use super::formats::Source;
use super::progress::Progress;
use super::server::{BATCH_MAX_BYTES, BATCH_MAX_ITEMS, Budget, Server};

/// An entry on its way.
struct Item {
    line: u64,
    person_hash: u64,
    json: String,
}

/// What all lanes need.
pub struct Lanes {
    /// Where to.
    pub server: Server,
    /// Into which budget.
    pub id: BudgetId,
    /// Whether that is new.
    pub budget: Budget,
    /// Where answers are counted.
    pub progress: Arc<Progress>,
    /// Ends the sending once what is under way is answered.
    pub stop: CancellationToken,
}

impl Lanes {
    /// Reads the source to its end and sends everything through so many lanes. `identity` is what the file had at its
    /// first reading.
    ///
    /// # Errors
    /// The first failure that ends the import. What was answered until then is counted.
    pub async fn send_all(
        self,
        source: Source,
        identity: FileIdentity,
        concurrency: usize,
    ) -> Result<(), SendError> {
        let this = Arc::new(self);
        // Cancelled by whoever fails first, so that the others end as well.
        let halt = this.stop.child_token();
        let mut lanes = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (sender, items) = mpsc::channel(BATCH_MAX_ITEMS);
            lanes.push(sender);
            let (this, halt) = (Arc::clone(&this), halt.clone());
            tasks.spawn(async move { this.run_lane(items, &halt).await });
        }
        let progress = Arc::clone(&this.progress);
        let reader_halt = halt.clone();
        tasks.spawn_blocking(move || read_into(source, identity, &lanes, &progress, &reader_halt));

        let mut first_failure = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended.map_err(SendError::from).flatten() {
                halt.cancel();
                if first_failure.is_ok() {
                    first_failure = Err(failure);
                }
            }
        }
        // A lane that was halted ends well: the stop itself is the reason then.
        if first_failure.is_ok() && this.stop.is_cancelled() {
            return Err(ImportError::Stopped.into());
        }
        first_failure
    }

    async fn run_lane(
        &self,
        mut items: mpsc::Receiver<Item>,
        halt: &CancellationToken,
    ) -> Result<(), SendError> {
        let mut next = None;
        loop {
            let batch = tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(()),
                batch = fill(&mut items, &mut next) => batch,
            };
            if batch.json.is_empty() {
                return Ok(());
            }
            let outcomes = self.server.submit(&self.id, self.budget, &batch.json).await?;
            for (line, outcome) in batch.lines.into_iter().zip(outcomes) {
                self.progress.note(line, outcome);
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
    fn has_room_for(&self, item: &Item) -> bool {
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

/// The next batch: as full as it can be, empty at the end. `next` keeps the item that did not fit.
async fn fill(items: &mut mpsc::Receiver<Item>, next: &mut Option<Item>) -> Batch {
    let mut batch = Batch::default();
    if let Some(item) = next.take() {
        batch.push(item);
    }
    while let Some(item) = items.recv().await {
        if !batch.has_room_for(&item) {
            *next = Some(item);
            break;
        }
        batch.push(item);
    }
    batch
}

/// Reads entries into the lanes until the end, or until nobody wants them any more.
fn read_into(
    mut source: Source,
    identity: FileIdentity,
    lanes: &[mpsc::Sender<Item>],
    progress: &Progress,
    halt: &CancellationToken,
) -> Result<(), SendError> {
    let categories = source.categories().to_vec();
    while let Some(entry) = source.next_ballot()? {
        if halt.is_cancelled() {
            return Ok(());
        }
        let ballot = match entry {
            Ok(ballot) => ballot,
            Err(refusal) => {
                progress.refuse(refusal);
                continue;
            }
        };
        let item = Item {
            line: ballot.line,
            person_hash: ballot.person_hash(),
            json: ballot.to_json(identity, &categories),
        };
        // Fewer lanes than 64 bits count.
        let lane = item.person_hash.checked_rem(lanes.len() as u64).unwrap_or_default() as usize;
        match lanes.get(lane) {
            Some(lane) if lane.blocking_send(item).is_ok() => {}
            // The lane has ended early: it says why.
            _ => return Ok(()),
        }
    }
    if source.identity() == identity { Ok(()) } else { Err(SendError::Changed) }
}

/// Why not everything was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// For the server's reasons, or the user's.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The file cannot be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not what it was at the first reading.
    #[error("the file changed while it was read")]
    Changed,
    /// A task failed.
    #[error("a part of the import failed: {0}")]
    Task(#[from] JoinError),
}
