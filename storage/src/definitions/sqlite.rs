//! Definitions in one SQLite file: an append-only history, which is the compare-and-set too. A change reads the
//! history to its end, decides, and takes the next number in it; who finds that number taken starts over.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use schemas::{Budget, BudgetId};
use tokio::sync::{Mutex, watch};

use super::{Catalog, Change, ChangeRefused, DefinitionError, Definitions};
use crate::sqlite::{self, Durability, Schema, Worker};

pub use crate::sqlite::OpenError;

/// How often a change starts over. Whenever it must, somebody else's change went through.
const ATTEMPTS: u32 = 100;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_4401,
    version: 1,
    tables: "
        CREATE TABLE history (
            sequence INTEGER PRIMARY KEY,
            definition TEXT NOT NULL
        ) STRICT;
    ",
};

/// Definitions in one SQLite file. What another process changes is seen at the next change of this one's own.
pub struct SqliteDefinitions {
    database: Worker,
    known: Arc<Known>,
    /// One change at a time in this process.
    changing: Mutex<()>,
}

/// What this process knows. Only the database's thread moves it on, so that it does even if nobody waits any more.
struct Known {
    history: ArcSwap<History>,
    changed: watch::Sender<()>,
}

/// The history as far as it has been read.
#[derive(Default)]
struct History {
    sequence: i64,
    catalog: Arc<Catalog>,
}

#[derive(Debug, thiserror::Error)]
enum HistoryFault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("definition {sequence} does not parse: {reason}")]
    Damage { sequence: i64, reason: String },
}

impl SqliteDefinitions {
    /// Opens the definitions, and creates the file if there is none.
    ///
    /// # Errors
    /// When the file does not hold definitions, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = sqlite::open(path, &SCHEMA, Durability::PowerLoss)?;
        let known = Known { history: ArcSwap::default(), changed: watch::Sender::new(()) };
        known.read_on(&connection).map_err(|fault| OpenError::unusable(path, fault))?;
        let database = Worker::start("definitions", connection)
            .map_err(|error| OpenError::unusable(path, error))?;
        Ok(Self { database, known: Arc::new(known), changing: Mutex::default() })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Known, &mut Connection) -> Result<T, HistoryFault> + Send + 'static,
    ) -> Result<T, DefinitionError> {
        let known = Arc::clone(&self.known);
        let step = move |connection: &mut Connection| step(&known, connection);
        let done = self.database.call(step).await;
        done.map_err(|gone| DefinitionError::Unavailable(gone.to_string()))?
            .map_err(|fault| DefinitionError::Unavailable(fault.to_string()))
    }
}

#[async_trait]
impl Definitions for SqliteDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.history.load().catalog)
    }

    fn is_loaded(&self) -> bool {
        true
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.known.changed.subscribe()
    }

    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError> {
        let _alone = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let history = self.on_thread(|known, connection| known.read_on(connection)).await?;
            let current = history.catalog.get(budget.as_str());
            let Some(next) = decide(current.map(Arc::as_ref))? else {
                return current.cloned().ok_or(ChangeRefused::Unknown.into());
            };
            let next = Arc::new(next);
            let written = Arc::clone(&next);
            let append = move |known: &Known, connection: &mut Connection| {
                known.append(connection, &history, written)
            };
            if self.on_thread(append).await? {
                return Ok(next);
            }
        }
        Err(DefinitionError::Unavailable("too many others change definitions now".into()))
    }
}

impl Known {
    /// Reads what has been appended since.
    fn read_on(&self, connection: &Connection) -> Result<Arc<History>, HistoryFault> {
        let known = self.history.load_full();
        let mut select = connection.prepare_cached(
            "SELECT sequence, definition FROM history WHERE sequence > ?1 ORDER BY sequence",
        )?;
        let mut rows = select.query([known.sequence])?;
        let (mut sequence, mut catalog) = (known.sequence, Arc::clone(&known.catalog));
        while let Some(row) = rows.next()? {
            sequence = row.get(0)?;
            let damage = |reason: String| HistoryFault::Damage { sequence, reason };
            let json = row.get_ref(1)?.as_bytes().map_err(|error| damage(error.to_string()))?;
            let budget: Budget =
                serde_json::from_slice(json).map_err(|error| damage(error.to_string()))?;
            catalog = Arc::new(catalog.with(Arc::new(budget)));
        }
        if sequence == known.sequence {
            return Ok(known);
        }
        Ok(self.show(History { sequence, catalog }))
    }

    /// Takes the place after `history`, unless somebody else has it.
    fn append(
        &self,
        connection: &mut Connection,
        history: &History,
        budget: Arc<Budget>,
    ) -> Result<bool, HistoryFault> {
        let sequence = history.sequence + 1;
        let json = serde_json::to_string(&*budget)
            .map_err(|error| HistoryFault::Damage { sequence, reason: error.to_string() })?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken = transaction.execute(
            "INSERT INTO history (sequence, definition) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            (sequence, json),
        )?;
        transaction.commit()?;
        if taken == 1 {
            self.show(History { sequence, catalog: Arc::new(history.catalog.with(budget)) });
        }
        Ok(taken == 1)
    }

    fn show(&self, history: History) -> Arc<History> {
        let history = Arc::new(history);
        self.history.store(Arc::clone(&history));
        self.changed.send_replace(());
        history
    }
}
