//! Watches the embedded control topic for commits of other processes, such as commands.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{HistoryFault, SCHEMA, SqliteOpenError};
use crate::sqlite;

/// Interval at which the file is watched.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Watches the file until dropped.
pub(super) struct FileWatcher {
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatcher {
    /// Reads the file once, starts the thread, and reads the file again after each commit of another connection.
    pub fn start(
        path: &Path,
        read: impl Fn(&Connection) -> Result<(), HistoryFault> + Send + 'static,
    ) -> Result<Self, SqliteOpenError> {
        let connection = sqlite::open_to_read(path, &SCHEMA)?;
        let unusable = |fault: HistoryFault| SqliteOpenError::unusable(path, fault);
        let mut version = data_version(&connection).map_err(unusable)?;
        read(&connection).map_err(unusable)?;
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            while stopped.recv_timeout(POLL_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let read = data_version(&connection).and_then(|now| {
                    if now != version {
                        read(&connection)?;
                    }
                    Ok(now)
                });
                match read {
                    Ok(now) => version = now,
                    // The version stays the one before, so that the file is read at the next interval.
                    Err(error) => {
                        tracing::warn!(%error, "failed to read the control topic, retrying");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("definitions-file".into()).spawn(watch);
        let thread = thread.map_err(|error| SqliteOpenError::unusable(path, error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FileWatcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

/// Returns a number that changes with each commit of another connection.
fn data_version(connection: &Connection) -> Result<i64, HistoryFault> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}
