//! The data directory of the embedded storage, locked by one process at a time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use storage::private_files;

const LOCK_FILE: &str = "allocator.lock";

/// Why the data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error(
        "another allocator{holder} runs on the data in {dir}; stop it, or choose another directory with \
         --set sqlite.dir=PATH"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// ` (process N)`, if the lock file holds a process id.
        holder: String,
    },
    /// The directory cannot be created or locked.
    #[error("cannot use the data directory {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// A locked data directory. Dropping it, or the end of the process, releases the lock.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, closes it to other users, and locks it.
    ///
    /// # Errors
    /// When another process holds the lock, or the directory cannot be created or locked.
    pub fn lock(dir: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { dir: dir.to_owned(), source };
        private_files::create_dir(dir).map_err(io)?;
        let mut file = private_files::open_file(&dir.join(LOCK_FILE)).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let id = std::process::id().to_string();
        file.set_len(0).and_then(|()| file.write_all(id.as_bytes())).map_err(io)?;
        Ok(Self { _lock: file })
    }
}

/// Describes the process in the lock file. Only for the error message: the lock itself is the file lock.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(20).read_to_string(&mut text));
    match (read, text.parse::<u32>()) {
        (Ok(_), Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_lock_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let locked = DataDir::lock(&dir).unwrap();
        let refused = DataDir::lock(&dir).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }));
        let process = std::process::id();
        assert!(
            refused.to_string().starts_with(&format!("another allocator (process {process}) runs"))
        );
        drop(locked);
        DataDir::lock(&dir).unwrap();
    }
}
