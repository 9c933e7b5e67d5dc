//! The control topic embedded in a SQLite file: an append-only history of definitions. The active log never changes
//! there.
//!
//! Compare-and-set: a change reads the history to its end, decides, and inserts the next sequence number. A change that
//! finds another end retries. Revoked codes and the list of annulments are in tables of their own (`revocations`,
//! `annulments`). `watcher` notices what other processes write, and `erasure` erases former definitions.

mod annulments;
mod erasure;
mod revocations;
mod watcher;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{
    AnnulmentChange, AnnulmentRegister, Budget, BudgetId, LogRef, RevokedCodes, SecretFingerprint,
    SerialSet, StoredAnnulments, StoredBudget, StoredRevocations,
};
use tokio::sync::{Mutex, watch};

use self::watcher::FileWatcher;
use super::{
    ActiveLog, AnnulmentChangeError, AnnulmentRegisters, BudgetDefinitions, Catalog, Change,
    ChangeRefused, CodeRevocations, ControlTopicError, Deletion, Erasure, RevokeError,
    SecretRecord,
};
use crate::sqlite::{self, Durability, Schema, Worker};

pub use crate::sqlite::SqliteOpenError;

/// Attempts of a change. Each retry means that another process changed a definition.
const MAX_ATTEMPTS: u32 = 100;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_4401,
    first_version: 1,
    migrations: &["
        CREATE TABLE history (
            sequence INTEGER PRIMARY KEY,
            definition TEXT NOT NULL
        ) STRICT;
    "],
    additions: &[],
};

/// Holds the fingerprint of the person secret, from when it is recorded. Not a migration: earlier releases open the
/// file as before.
const SECRET_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS person_secret (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        fingerprint TEXT NOT NULL
    ) STRICT;
";

/// The control topic in one SQLite file. What another process changes becomes visible within a second.
pub struct SqliteControlTopic {
    database: Worker,
    state: Arc<State>,
    active_log: watch::Sender<Option<LogRef>>,
    secret: watch::Sender<Option<SecretFingerprint>>,
    revoked: watch::Sender<RevokedCodes>,
    _watcher: FileWatcher,
    /// Serializes the changes of this process.
    changing: Mutex<()>,
}

/// The latest known state. The database's thread and the watcher update it, even if the caller of a change no longer
/// waits.
struct State {
    history: ArcSwap<History>,
    changed: watch::Sender<()>,
}

/// The history, as far as it has been read.
#[derive(Default)]
struct History {
    sequence: i64,
    catalog: Arc<Catalog>,
}

#[derive(Debug, thiserror::Error)]
enum HistoryFault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("definition {sequence} is invalid: {reason}")]
    Damage { sequence: i64, reason: String },
    #[error("another process reads the file for too long")]
    InUse,
}

impl SqliteControlTopic {
    /// Opens the file, and creates it if it does not exist.
    ///
    /// # Errors
    /// When the file is not a control topic, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, SqliteOpenError> {
        let mut connection = sqlite::open(path, &SCHEMA, Durability::PowerLoss)?;
        // Opens also if it fails: the persons are forgotten, and the next start repeats it.
        if let Err(error) = erasure::finish_interrupted(&mut connection) {
            tracing::error!(%error, "failed to erase former definitions of forgotten budgets");
        }
        let secret =
            read_secret(&connection).map_err(|error| SqliteOpenError::unusable(path, error))?;
        let state = State { history: ArcSwap::default(), changed: watch::Sender::new(()) };
        let state = Arc::new(state);
        let revoked = watch::Sender::default();
        let watcher = {
            let (state, revoked) = (Arc::clone(&state), revoked.clone());
            FileWatcher::start(path, move |connection| {
                revocations::read(connection, &revoked)?;
                state.read_new(connection).map(|_| ())
            })?
        };
        revoked.send_modify(RevokedCodes::set_loaded);
        let database = Worker::start("definitions", connection)
            .map_err(|error| SqliteOpenError::unusable(path, error))?;
        Ok(Self {
            database,
            state,
            active_log: watch::Sender::new(None),
            secret: watch::Sender::new(secret),
            revoked,
            _watcher: watcher,
            changing: Mutex::default(),
        })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        step: impl FnOnce(&State, &mut Connection) -> Result<T, HistoryFault> + Send + 'static,
    ) -> Result<T, ControlTopicError> {
        let state = Arc::clone(&self.state);
        let step = move |connection: &mut Connection| step(&state, connection);
        let result = self.database.call(step).await;
        result
            .map_err(|gone| ControlTopicError::Unavailable(gone.to_string()))?
            .map_err(|fault| ControlTopicError::Unavailable(fault.to_string()))
    }
}

impl SqliteControlTopic {
    /// Appends a record after `history`, and returns whether no other process has appended one.
    async fn append(
        &self,
        history: &Arc<History>,
        catalog: Catalog,
        json: String,
    ) -> Result<bool, ControlTopicError> {
        let history = Arc::clone(history);
        let append = move |state: &State, connection: &mut Connection| {
            state.append(connection, &history, catalog, &json)
        };
        self.on_thread(append).await
    }
}

#[async_trait]
impl ActiveLog for SqliteControlTopic {
    fn is_loaded(&self) -> bool {
        true
    }

    fn subscribe(&self) -> watch::Receiver<Option<LogRef>> {
        self.active_log.subscribe()
    }

    async fn announce(&self, _log: &LogRef) -> Result<(), ControlTopicError> {
        Err(ControlTopicError::Unavailable("the embedded log cannot be replaced".to_owned()))
    }
}

#[async_trait]
impl SecretRecord for SqliteControlTopic {
    fn subscribe_secret(&self) -> watch::Receiver<Option<SecretFingerprint>> {
        self.secret.subscribe()
    }

    async fn record_secret(
        &self,
        fingerprint: &SecretFingerprint,
    ) -> Result<SecretFingerprint, ControlTopicError> {
        let (wanted, text) = (fingerprint.clone(), fingerprint.to_string());
        let record = move |_: &State, connection: &mut Connection| {
            connection.execute_batch(SECRET_TABLE)?;
            connection.execute(
                "INSERT INTO person_secret (id, fingerprint) VALUES (1, ?1) ON CONFLICT DO NOTHING",
                [text],
            )?;
            Ok(read_secret(connection)?.unwrap_or(wanted))
        };
        let recorded = self.on_thread(record).await?;
        self.secret.send_replace(Some(recorded.clone()));
        Ok(recorded)
    }
}

#[async_trait]
impl CodeRevocations for SqliteControlTopic {
    fn subscribe_revoked(&self) -> watch::Receiver<RevokedCodes> {
        self.revoked.subscribe()
    }

    async fn revoke(
        &self,
        budget: &BudgetId,
        serials: &SerialSet,
    ) -> Result<SerialSet, RevokeError> {
        let (id, wanted) = (budget.clone(), serials.clone());
        let revoke = move |_: &State, connection: &mut Connection| {
            Ok(revocations::revoke(connection, &id, &wanted)?)
        };
        let revoked = self.on_thread(revoke).await??;
        let stored = StoredRevocations::Understood(revoked.clone());
        self.revoked.send_if_modified(|known| known.add(budget, stored));
        Ok(revoked)
    }
}

#[async_trait]
impl AnnulmentRegisters for SqliteControlTopic {
    async fn annulments(&self, budget: &BudgetId) -> Result<StoredAnnulments, ControlTopicError> {
        let id = budget.clone();
        self.on_thread(move |_, connection| Ok(annulments::read(connection, &id)?)).await
    }

    async fn change_annulments(
        &self,
        budget: &BudgetId,
        change: &AnnulmentChange,
    ) -> Result<AnnulmentRegister, AnnulmentChangeError> {
        let (id, wanted) = (budget.clone(), change.clone());
        let change = move |_: &State, connection: &mut Connection| {
            Ok(annulments::change(connection, &id, &wanted)?)
        };
        self.on_thread(change).await?
    }
}

fn read_secret(connection: &Connection) -> rusqlite::Result<Option<SecretFingerprint>> {
    let is_table_there = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'person_secret'")?
        .exists([])?;
    if !is_table_there {
        return Ok(None);
    }
    connection
        .query_row("SELECT fingerprint FROM person_secret", [], |row| row.get(0))
        .optional()
        .map(|text: Option<String>| text.map(SecretFingerprint::from_text))
}

#[async_trait]
impl BudgetDefinitions for SqliteControlTopic {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.state.history.load().catalog)
    }

    fn is_loaded(&self) -> bool {
        true
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        let history = self.on_thread(|state, connection| state.read_new(connection)).await?;
        Ok(Arc::clone(&history.catalog))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.state.changed.subscribe()
    }

    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError> {
        let _changing = self.changing.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            let history = self.on_thread(|state, connection| state.read_new(connection)).await?;
            let current = history.catalog.changeable(budget.as_str())?;
            let Some(next) = decide(current.map(Arc::as_ref))? else {
                return current.cloned().ok_or(ChangeRefused::Unknown.into());
            };
            let next = history.catalog.numbered(next);
            let json = StoredBudget::document(&next)
                .map_err(|error| ControlTopicError::Unavailable(error.to_string()))?;
            let next = Arc::new(next);
            let catalog = history.catalog.with(Arc::clone(&next));
            if self.append(&history, catalog, json).await? {
                return Ok(next);
            }
        }
        Err(too_many_changes())
    }

    async fn delete(
        &self,
        budget: &BudgetId,
        decide: &Deletion<'_>,
    ) -> Result<(), ControlTopicError> {
        let _changing = self.changing.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            let history = self.on_thread(|state, connection| state.read_new(connection)).await?;
            let current = history.catalog.changeable(budget.as_str())?;
            decide(current.map(Arc::as_ref))?;
            let Some(current) = current else { return Err(ChangeRefused::Unknown.into()) };
            let revision = current.revision + 1;
            let catalog = history.catalog.without(budget, revision);
            let json = StoredBudget::deletion(budget, revision);
            if self.append(&history, catalog, json).await? {
                return Ok(());
            }
        }
        Err(too_many_changes())
    }

    async fn erase_former_definitions(
        &self,
        budget: &BudgetId,
    ) -> Result<Erasure, ControlTopicError> {
        let _changing = self.changing.lock().await;
        let budget = budget.clone();
        self.on_thread(move |_, connection| erasure::erase_former(connection, &budget)).await?;
        Ok(Erasure::Erased)
    }
}

fn too_many_changes() -> ControlTopicError {
    ControlTopicError::Unavailable("too many concurrent changes of definitions".into())
}

impl State {
    /// Reads the records appended since the last read.
    fn read_new(&self, connection: &Connection) -> Result<Arc<History>, HistoryFault> {
        let known = self.history.load_full();
        let mut select = connection.prepare_cached(
            "SELECT sequence, definition FROM history WHERE sequence > ?1 ORDER BY sequence",
        )?;
        let mut rows = select.query([known.sequence])?;
        let (mut sequence, mut catalog) = (known.sequence, Arc::clone(&known.catalog));
        let mut changed = BTreeSet::new();
        while let Some(row) = rows.next()? {
            sequence = row.get(0)?;
            let damage = |reason: String| HistoryFault::Damage { sequence, reason };
            let json = row.get_ref(1)?.as_bytes().map_err(|error| damage(error.to_string()))?;
            let id = StoredBudget::id(json).ok_or_else(|| damage("it names no budget".into()))?;
            catalog = Arc::new(catalog.with_stored(&id, StoredBudget::parse(json)));
            changed.insert(id);
        }
        changed.iter().for_each(|id| catalog.log_not_understood(id));
        if sequence == known.sequence {
            return Ok(known);
        }
        Ok(self.update(History { sequence, catalog }))
    }

    /// Inserts the record after `history`, which makes `catalog`, and returns whether that was the end of the history.
    fn append(
        &self,
        connection: &mut Connection,
        history: &History,
        catalog: Catalog,
        json: &str,
    ) -> Result<bool, HistoryFault> {
        let sequence = history.sequence + 1;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let inserted = transaction.execute(
            // Not only a free number: erasure frees the numbers of former definitions.
            "INSERT INTO history (sequence, definition) SELECT ?1, ?2
                WHERE (SELECT coalesce(max(sequence), 0) FROM history) = ?1 - 1",
            (sequence, json),
        )?;
        transaction.commit()?;
        if inserted == 1 {
            self.update(History { sequence, catalog: Arc::new(catalog) });
        }
        Ok(inserted == 1)
    }

    fn update(&self, history: History) -> Arc<History> {
        let history = Arc::new(history);
        let mut is_newer = false;
        // The other thread may have read more meanwhile.
        self.history.rcu(|known| {
            is_newer = known.sequence < history.sequence;
            if is_newer { Arc::clone(&history) } else { Arc::clone(known) }
        });
        if is_newer {
            self.changed.send_replace(());
        }
        history
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
