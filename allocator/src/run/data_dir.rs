//! The folder of the embedded files, for one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "allocator.lock";

/// Why the folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error(
        "another allocator{holder} runs on the data in {dir}; stop it, or give this one a folder of its own with \
         --set sqlite.dir=PATH"
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// ` (process N)`, where it says.
        holder: String,
    },
    /// It cannot be made or locked.
    #[error("the data folder {dir}: {source}")]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The folder, ours until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// # Errors
    /// When another process has it, or the system does not let us.
    pub fn take(dir: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(dir.join(LOCK_FILE)).map_err(io)?;
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

/// Who has it, as the file says: a help for people, nothing rests on it.
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
    fn a_folder_is_taken_once_until_it_is_given_back() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let taken = DataDir::take(&dir).unwrap();
        let refused = DataDir::take(&dir).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }));
        let me = std::process::id();
        assert!(refused.to_string().starts_with(&format!("another allocator (process {me}) runs")));
        drop(taken);
        DataDir::take(&dir).unwrap();
    }
}
