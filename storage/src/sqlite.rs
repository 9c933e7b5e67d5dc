//! The embedded SQLite databases: opening, schema migrations, and the thread that owns a connection. Does not own the
//! tables, which belong to the adapters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use tokio::sync::{mpsc, oneshot};

use crate::private_files;

/// Maximum time that a statement waits for a write by another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum queued calls of a [`Worker`].
const MAX_QUEUED_CALLS: usize = 256;

/// Why a database cannot be opened. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum SqliteOpenError {
    /// The file cannot be opened, read or written.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Error of SQLite or the operating system.
        reason: String,
    },
    /// The file is a database of another kind or release.
    #[error("{} is not a database of this kind and release: name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is already open, in another process or in this one.
    #[error("{} is in use: stop the other process, or name another file", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The log has another partition count. The count of a log never changes.
    #[error("the log {} has {stored} partitions, not {wanted}: configure {stored}, or name another file", path.display())]
    PartitionCount {
        /// The file.
        path: PathBuf,
        /// Partition count of the log.
        stored: u32,
        /// The configured partition count.
        wanted: u32,
    },
}

impl SqliteOpenError {
    pub(crate) fn unusable(path: &Path, reason: impl ToString) -> Self {
        Self::Unusable { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The schema of one kind of database.
pub(crate) struct Schema {
    /// Identifies the kind of database.
    pub application_id: i32,
    /// Schema version of the first migration. Earlier versions were never released, and are rejected.
    pub first_version: usize,
    /// Migrations, of which each increments the schema version. Released ones never change.
    pub migrations: &'static [&'static str],
    /// Statements that create what an earlier release ignores, if it does not exist. They do not increment the version,
    /// so an earlier release still opens the database.
    pub additions: &'static [&'static str],
}

impl Schema {
    fn latest_version(&self) -> usize {
        self.first_version + self.migrations.len() - 1
    }

    /// Whether a database of this application id and version can be migrated.
    fn is_known(&self, (application_id, version): (i32, usize)) -> bool {
        application_id == self.application_id
            && (self.first_version..=self.latest_version()).contains(&version)
    }

    /// The migrations from an empty database. The first one also sets the application id.
    fn migrations(&self) -> Migrations<'static> {
        let application_id = self.application_id;
        let skipped = (1..self.first_version).map(|_| M::up(""));
        let migrations = self.migrations.iter().enumerate().map(move |(index, sql)| match index {
            0 => M::up_with_hook(sql, move |transaction: &rusqlite::Transaction<'_>| {
                Ok(transaction.pragma_update(None, "application_id", application_id)?)
            }),
            _ => M::up(sql),
        });
        Migrations::from_iter(skipped.chain(migrations))
    }
}

/// Which failures a commit survives. All commits survive the death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Also a power loss.
    PowerLoss,
    /// Not a power loss: the latest commits may be rolled back, newest first and each as a whole.
    ProcessDeath,
}

/// Opens a database and migrates it to the latest schema. Creates it if it does not exist.
pub(crate) fn open(
    path: &Path,
    schema: &Schema,
    durability: Durability,
) -> Result<Connection, SqliteOpenError> {
    let unusable = |error: rusqlite::Error| SqliteOpenError::unusable(path, error);
    create_directory(path)
        .and_then(|()| private_files::prepare_database(path))
        .map_err(|error| SqliteOpenError::unusable(path, error))?;
    let mut connection = Connection::open(path).map_err(unusable)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    migrate(&mut connection, path, schema)?;
    for addition in schema.additions {
        connection.execute_batch(addition).map_err(unusable)?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unusable)?;
    if mode != "wal" {
        return Err(SqliteOpenError::unusable(
            path,
            format!("its journal mode is {mode}, not wal"),
        ));
    }
    let synchronous = match durability {
        Durability::PowerLoss => "FULL",
        Durability::ProcessDeath => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(unusable)?;
    Ok(connection)
}

/// Opens an existing database read-only, while another connection may write to it.
pub(crate) fn open_to_read(path: &Path, schema: &Schema) -> Result<Connection, SqliteOpenError> {
    let unusable = |error: rusqlite::Error| SqliteOpenError::unusable(path, error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(unusable)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    let found = kind(&connection).map_err(unusable)?;
    if found != (schema.application_id, schema.latest_version()) {
        return Err(SqliteOpenError::Foreign { path: path.to_owned() });
    }
    Ok(connection)
}

/// Creates the file's directory, durably.
fn create_directory(path: &Path) -> std::io::Result<()> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    if directory.is_dir() {
        return Ok(());
    }
    create_directory(directory)?;
    fs::create_dir_all(directory)?;
    let above = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// Migrates an empty database, or one of a known version, to the latest schema. Leaves all other databases unchanged.
fn migrate(
    connection: &mut Connection,
    path: &Path,
    schema: &Schema,
) -> Result<(), SqliteOpenError> {
    let unusable = |error: rusqlite::Error| SqliteOpenError::unusable(path, error);
    let latest = (schema.application_id, schema.latest_version());
    // Of two processes that migrate at once, one waits here for the other.
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    let found = {
        let transaction = connection.transaction().map_err(unusable)?;
        let found = kind(&transaction).map_err(unusable)?;
        if !schema.is_known(found) && !is_empty(&transaction).map_err(unusable)? {
            return Err(SqliteOpenError::Foreign { path: path.to_owned() });
        }
        found
    };
    let migrated = match found == latest {
        true => Ok(()),
        false => schema.migrations().to_latest(connection),
    };
    connection.set_transaction_behavior(TransactionBehavior::Deferred);
    match migrated {
        // Another process migrated it in between.
        Err(_) if kind(connection).map_err(unusable)? == latest => Ok(()),
        migrated => migrated.map_err(|error| SqliteOpenError::unusable(path, error)),
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && kind(connection)? == (0, 0))
}

/// Reads application id and schema version; both are 0 in an empty database.
fn kind(connection: &Connection) -> rusqlite::Result<(i32, usize)> {
    let application_id = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((application_id, usize::try_from(version).unwrap_or(usize::MAX)))
}

/// Whether the file itself is damaged, so that a retry cannot help.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread that owns a connection and runs calls in order. Dropping it waits for the queued calls.
pub(crate) struct Worker {
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

/// The worker's thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the database's thread has ended")]
pub(crate) struct WorkerGone;

impl Worker {
    pub fn start(name: &str, mut connection: Connection) -> std::io::Result<Self> {
        let (calls, mut queue) = mpsc::channel::<Call>(MAX_QUEUED_CALLS);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(call) = queue.blocking_recv() {
                call(&mut connection);
            }
        })?;
        Ok(Self { calls: Some(calls), thread: Some(thread) })
    }

    /// Runs a call and returns its result. A queued call runs even if the caller stops waiting.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, WorkerGone> {
        let (result, receiver) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // The caller may have stopped waiting.
            let _ = result.send(call(connection));
        });
        let calls = self.calls.as_ref().ok_or(WorkerGone)?;
        calls.send(call).await.map_err(|_| WorkerGone)?;
        receiver.await.map_err(|_| WorkerGone)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("database thread panicked");
        }
    }
}
