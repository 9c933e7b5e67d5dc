//! What our SQLite databases have in common: how a file is opened and known again, and the thread that owns a
//! connection. What is in the tables belongs to the adapters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const QUEUED_JOBS: usize = 256;

/// Why a database cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened, read or written.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Unusable {
        /// Its file.
        path: PathBuf,
        /// What SQLite or the operating system says.
        reason: String,
    },
    /// It is a database, but not of this kind, or of another release.
    #[error("{} is not a database of this kind and release: name another file", path.display())]
    Foreign {
        /// Its file.
        path: PathBuf,
    },
    /// Another process, or another part of this one, has it open.
    #[error("{} is in use: stop the other process, or name another file", path.display())]
    InUse {
        /// Its file.
        path: PathBuf,
    },
    /// The log was created with another partition count, which never changes.
    #[error("the log {} has {stored} partitions, not {wanted}: configure {stored}, or name another file", path.display())]
    PartitionCount {
        /// Its file.
        path: PathBuf,
        /// What it was created with.
        stored: u32,
        /// What was asked for.
        wanted: u32,
    },
}

impl OpenError {
    pub(crate) fn unusable(path: &Path, reason: impl ToString) -> Self {
        Self::Unusable { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What a database is known by, and what it begins with.
pub(crate) struct Schema {
    /// Tells our kinds of database apart from each other and from everybody else's.
    pub application_id: i32,
    /// Grows when a release changes the tables.
    pub version: i32,
    /// Creates the tables.
    pub tables: &'static str,
}

/// What a commit survives. A process that dies loses nothing either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power cut.
    PowerLoss,
    /// A power cut may take back the latest commits, newest first, each of them whole.
    ProcessDeath,
}

/// Opens a database, and creates it if there is none.
pub(crate) fn open(
    path: &Path,
    schema: &Schema,
    durability: Durability,
) -> Result<Connection, OpenError> {
    let unusable = |error: rusqlite::Error| OpenError::unusable(path, error);
    create_directory(path).map_err(|error| OpenError::unusable(path, error))?;
    let mut connection = Connection::open(path).map_err(unusable)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    if !create_or_recognise(&mut connection, schema).map_err(unusable)? {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unusable)?;
    if mode != "wal" {
        return Err(OpenError::unusable(path, format!("its journal mode is {mode}, not wal")));
    }
    let synchronous = match durability {
        Durability::PowerLoss => "FULL",
        Durability::ProcessDeath => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(unusable)?;
    Ok(connection)
}

/// Opens a database that is there, beside whoever writes to it.
pub(crate) fn open_to_read(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
    let unusable = |error: rusqlite::Error| OpenError::unusable(path, error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(unusable)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    if kind(&connection).map_err(unusable)? != (schema.application_id, schema.version) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    Ok(connection)
}

/// Makes the file's directory, in a way that a power cut does not take it back.
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

/// Whether the database is of this schema now.
fn create_or_recognise(connection: &mut Connection, schema: &Schema) -> rusqlite::Result<bool> {
    // One transaction: of two processes that create the database at once, one waits for the other.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = kind(&transaction)?;
    if found == (schema.application_id, schema.version) {
        return Ok(true);
    }
    let tables: u32 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if found != (0, 0) || tables != 0 {
        return Ok(false);
    }
    transaction.execute_batch(schema.tables)?;
    transaction.pragma_update(None, "application_id", schema.application_id)?;
    transaction.pragma_update(None, "user_version", schema.version)?;
    transaction.commit()?;
    Ok(true)
}

/// A database's application id and version; both 0 in one that nobody has marked.
fn kind(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// Whether the file itself is damaged, so that trying again is in vain.
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

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread that owns a connection and does one job after the other, in the order in which they were asked for.
/// Dropping it waits for the jobs that are already there.
pub(crate) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the database's thread has ended")]
pub(crate) struct WorkerGone;

impl Worker {
    pub fn start(name: &str, mut connection: Connection) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUED_JOBS);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does a job. It may be done even if nobody waits for its answer any more.
    pub async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, WorkerGone> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more.
            let _ = answer.send(job(connection));
        });
        let jobs = self.jobs.as_ref().ok_or(WorkerGone)?;
        jobs.send(job).await.map_err(|_| WorkerGone)?;
        answered.await.map_err(|_| WorkerGone)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a database's thread panicked");
        }
    }
}
