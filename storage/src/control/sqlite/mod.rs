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
    ChangeRefused, CodeRevocations, DefinitionError, Deletion, Erasure, RevokeError, SecretRecord,
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
    ) -> Result<T, DefinitionError> {
        let state = Arc::clone(&self.state);
        let step = move |connection: &mut Connection| step(&state, connection);
        let result = self.database.call(step).await;
        result
            .map_err(|gone| DefinitionError::Unavailable(gone.to_string()))?
            .map_err(|fault| DefinitionError::Unavailable(fault.to_string()))
    }
}

impl SqliteControlTopic {
    /// Appends a record after `history`, and returns whether no other process has appended one.
    async fn append(
        &self,
        history: &Arc<History>,
        catalog: Catalog,
        json: String,
    ) -> Result<bool, DefinitionError> {
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

    async fn publish(&self, _log: &LogRef) -> Result<(), DefinitionError> {
        Err(DefinitionError::Unavailable("the embedded log cannot be replaced".to_owned()))
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
    ) -> Result<SecretFingerprint, DefinitionError> {
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
    async fn annulments(&self, budget: &BudgetId) -> Result<StoredAnnulments, DefinitionError> {
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

    async fn confirmed(&self) -> Result<Arc<Catalog>, DefinitionError> {
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
    ) -> Result<Arc<Budget>, DefinitionError> {
        let _changing = self.changing.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            let history = self.on_thread(|state, connection| state.read_new(connection)).await?;
            let current = history.catalog.changeable(budget.as_str())?;
            let Some(next) = decide(current.map(Arc::as_ref))? else {
                return current.cloned().ok_or(ChangeRefused::Unknown.into());
            };
            let next = history.catalog.numbered(next);
            let json = StoredBudget::document(&next)
                .map_err(|error| DefinitionError::Unavailable(error.to_string()))?;
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
    ) -> Result<(), DefinitionError> {
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
    ) -> Result<Erasure, DefinitionError> {
        let _changing = self.changing.lock().await;
        let budget = budget.clone();
        self.on_thread(move |_, connection| erasure::erase_former(connection, &budget)).await?;
        Ok(Erasure::Erased)
    }
}

fn too_many_changes() -> DefinitionError {
    DefinitionError::Unavailable("too many concurrent changes of definitions".into())
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
mod tests {
    use super::*;
    use crate::control::{close, define, forget, freeze};
    use schemas::{PersonSalt, PersonSecret};

    const FUTURE: &str = include_str!("../../../../schemas/tests/golden/future_definition.json");

    fn rows(path: &Path) -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let mut select =
            connection.prepare("SELECT definition FROM history ORDER BY sequence").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn an_erased_salt_is_in_no_file_and_other_budgets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("definitions.db");
        let ours = SqliteControlTopic::open(&path).unwrap();
        let rival = SqliteControlTopic::open(&path).unwrap();
        let named = |number: u8, revision: u8| Budget {
            id: BudgetId::parse(&format!("b-{number}")).unwrap(),
            name: format!("{} {revision}", "x".repeat(usize::from(revision) * 40)),
            closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
            person_secret: PersonSecret::Salted(PersonSalt::from_bytes([number; 32])),
            ..schemas::default_budgets().unwrap().remove(0)
        };
        // Many pages, with the definitions of all budgets among each other.
        for revision in 1..=8 {
            for number in 1..=5 {
                let wanted = named(number, revision);
                ours.change(&wanted.id, &|current| define(current, &wanted)).await.unwrap();
            }
        }
        let has_salt = |number: u8| {
            let digits = format!("{number:02x}").repeat(32);
            let files = std::fs::read_dir(dir.path()).unwrap();
            let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
            files.filter(|bytes| bytes.windows(64).any(|it| it == digits.as_bytes())).count() > 0
        };
        assert!(has_salt(3));
        let wanted = named(3, 8);
        let closed = ours.change(&wanted.id, &|current| close(current, &wanted)).await.unwrap();
        let at = "2027-02-01T00:00:00Z".parse().unwrap();
        let decide = |current: Option<&Budget>| forget(current, closed.closing.unwrap(), at);
        rival.change(&wanted.id, &decide).await.unwrap();
        assert!(has_salt(3), "a former definition has it");
        let erasure = rival.erase_former_definitions(&wanted.id).await.unwrap();
        assert_eq!((erasure, has_salt(3)), (Erasure::Erased, false));
        assert!([1, 2, 4, 5].into_iter().all(has_salt));
        // Both go on, and a later start knows the same.
        let renamed = named(1, 9);
        ours.change(&renamed.id, &|current| define(current, &renamed)).await.unwrap();
        let anew = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(anew.catalog(), ours.confirmed().await.unwrap());
        let forgotten = anew.catalog().get("b-3").unwrap().person_secret.forgotten_at();
        assert_eq!((forgotten, anew.catalog().iter().count()), (Some(at), 5));
    }

    /// Returns a budget with this salt that closes at the beginning of 2027.
    fn salted(id: &str, salt: u8) -> Budget {
        Budget {
            id: BudgetId::parse(id).unwrap(),
            closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
            person_secret: PersonSecret::Salted(PersonSalt::from_bytes([salt; 32])),
            ..schemas::default_budgets().unwrap().remove(0)
        }
    }

    /// Defines, closes and forgets a budget, without erasing its former definitions.
    async fn define_and_forget(topic: &SqliteControlTopic, wanted: &Budget) {
        let id = &wanted.id;
        topic.change(id, &|current| define(current, wanted)).await.unwrap();
        let closed = topic.change(id, &|current| close(current, wanted)).await.unwrap();
        let at = "2027-02-01T00:00:00Z".parse().unwrap();
        let fence = closed.closing.unwrap();
        topic.change(id, &|current| forget(current, fence, at)).await.unwrap();
    }

    fn has_salt(dir: &Path, salt: u8) -> bool {
        let digits = format!("{salt:02x}").repeat(32);
        let files = std::fs::read_dir(dir).unwrap();
        let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(64).any(|it| it == digits.as_bytes())).count() > 0
    }

    #[tokio::test]
    async fn a_change_from_before_an_erasure_takes_no_number_that_the_erasure_has_freed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("definitions.db");
        let ours = SqliteControlTopic::open(&path).unwrap();
        let rival = SqliteControlTopic::open(&path).unwrap();
        let stale = ours.state.history.load_full();
        let gone = salted("gone", 1);
        define_and_forget(&rival, &gone).await;
        rival.erase_former_definitions(&gone.id).await.unwrap();
        let before = rows(&path);
        let late = Arc::new(Budget { revision: 1, ..salted("late", 2) });
        let json = StoredBudget::document(&late).unwrap();
        let catalog = stale.catalog.with(Arc::clone(&late));
        assert_eq!(ours.append(&stale, catalog, json).await, Ok(false), "number 1 is free");
        assert_eq!(rows(&path), before);
        // It is decided again, after the end.
        ours.change(&late.id, &|current| define(current, &late)).await.unwrap();
        assert_eq!(rows(&path).len(), 2);
        assert_eq!(rival.confirmed().await.unwrap(), ours.confirmed().await.unwrap());
    }

    #[tokio::test]
    async fn an_erasure_that_was_interrupted_is_finished_at_the_next_start() {
        // Killed before the erasure, and between the deletion and the end of it.
        for has_deleted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("definitions.db");
            let topic = SqliteControlTopic::open(&path).unwrap();
            let kept = salted("kept", 2);
            topic.change(&kept.id, &|current| define(current, &kept)).await.unwrap();
            let gone = salted("gone", 1);
            define_and_forget(&topic, &gone).await;
            // Keeps the files as a killed process leaves them.
            let copy = tempfile::tempdir().unwrap();
            if has_deleted {
                let id = gone.id.clone();
                let delete = move |_: &State, connection: &mut Connection| {
                    erasure::delete_former(connection, &id)
                };
                topic.on_thread(delete).await.unwrap();
            }
            for file in std::fs::read_dir(dir.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            assert!(has_salt(copy.path(), 1), "a former definition has it");
            let anew = SqliteControlTopic::open(&copy.path().join("definitions.db")).unwrap();
            assert!(!has_salt(copy.path(), 1) && has_salt(copy.path(), 2));
            assert_eq!(anew.catalog(), topic.catalog());
            let pending = anew.on_thread(|_, connection| erasure::unfinished(connection)).await;
            assert_eq!(pending, Ok(BTreeSet::new()));
        }
    }

    #[tokio::test]
    async fn a_definition_of_a_newer_release_is_served_and_never_written_over() {
        let unreadable = FUTURE.replace(r#""name":"Trees""#, r#""name":{"en":"Trees"}"#);
        for (future, is_served) in [(FUTURE, true), (unreadable.as_str(), false)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("definitions.db");
            let topic = SqliteControlTopic::open(&path).unwrap();
            // Another process, of a newer release, writes while this one runs.
            let insert = "INSERT INTO history (sequence, definition) VALUES (1, ?1)";
            Connection::open(&path).unwrap().execute(insert, [future]).unwrap();
            let id = BudgetId::parse("parks").unwrap();
            let wanted = Budget { id: id.clone(), ..schemas::default_budgets().unwrap().remove(0) };
            let defined = topic.change(&id, &|current| define(current, &wanted)).await;
            assert_eq!(defined, Err(ChangeRefused::NotUnderstood.into()));
            assert_eq!(topic.change(&id, &freeze).await, Err(ChangeRefused::NotUnderstood.into()));
            for topic in [topic, SqliteControlTopic::open(&path).unwrap()] {
                assert_eq!(topic.catalog().get("parks").is_some(), is_served);
                assert_eq!(topic.catalog().is_unreadable("parks"), !is_served);
            }
            assert_eq!(rows(&path), [future]);
            // Other budgets are changed as always.
            let topic = SqliteControlTopic::open(&path).unwrap();
            let other = Budget { id: BudgetId::parse("other").unwrap(), ..wanted };
            topic.change(&other.id, &|current| define(current, &other)).await.unwrap();
            assert_eq!(rows(&path).len(), 2);
        }
    }
}
