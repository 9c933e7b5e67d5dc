//! Files and directories that only the process's user can read: person rows and secrets of the embedded default.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// The permissions of others than the owner.
const OTHERS: u32 = 0o077;
/// A directory that several users share, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Beginnings of the names of what this program puts into a data directory.
const OWN_NAMES: [&str; 8] = [
    "log.db",
    "store.db",
    "definitions.db",
    "person.secret",
    "admin.token",
    "allocator.lock",
    "exports",
    "archive",
];

/// Creates a data directory that only its owner can open, and closes an existing one to others.
///
/// An existing directory is left as it is if it is shared or has other files: they may be meant for others.
///
/// # Errors
/// When the directory cannot be created or read.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    let mode = dir.metadata()?.mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if mode & STICKY == 0 && has_only_own_files(dir)? {
        restrict(dir, DIR_MODE);
    } else {
        tracing::warn!(dir = %dir.display(), "others can open the data directory, which has other files too");
    }
    Ok(())
}

/// Opens a file to read and write that only its owner can read. Creates it if it does not exist.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = file.open(path)?;
    close_file(path);
    Ok(file)
}

/// Creates a file that only its owner can read, with its whole text and durably, unless it exists already.
///
/// # Errors
/// When the file cannot be written.
pub fn create_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = with_suffix(path, &format!(".{}", uuid::Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match std::fs::hard_link(&draft, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            // A file system without hard links.
            std::fs::rename(&draft, path)?;
        }
        _ => std::fs::remove_file(&draft)?,
    }
    // Before anything that depends on the file: after a power loss it must be there.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Creates the file of a database if it does not exist, and closes it to others, with its `-wal` and `-shm`.
///
/// SQLite creates the latter two with the permissions of the first. An existing database is not opened: closing it
/// would release the locks that this process's connections have on it, and another process would take it for unused.
///
/// # Errors
/// When the file cannot be created.
pub(crate) fn prepare_database(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for suffix in ["", "-wal", "-shm"] {
        close_file(&with_suffix(path, suffix));
    }
    Ok(())
}

/// Closes a file to others, if it exists.
pub fn close_file(path: &Path) {
    if path.metadata().is_ok_and(|file| file.mode() & OTHERS != 0) {
        restrict(path, FILE_MODE);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn has_only_own_files(dir: &Path) -> io::Result<bool> {
    for entry in dir.read_dir()? {
        let name = entry?.file_name();
        if !OWN_NAMES.iter().any(|own| name.as_bytes().starts_with(own.as_bytes())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets the permissions. Another user's file, which only that user can restrict, is used as it is.
fn restrict(path: &Path, mode: u32) {
    if let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::warn!(%error, path = %path.display(), "failed to close a file of the data directory to others");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_data_directory_is_closed_to_others_unless_it_is_shared() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/data");
        create_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        set_mode(&dir, 0o755);
        std::fs::write(dir.join("log.db-wal"), "").unwrap();
        create_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);

        set_mode(&dir, 0o1777);
        create_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o1777);
        set_mode(&dir, 0o755);
        std::fs::write(dir.join("somebody's file"), "").unwrap();
        create_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o755);
    }

    #[test]
    fn files_are_created_private_and_existing_ones_are_restricted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db");
        prepare_database(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let files = ["log.db", "log.db-wal", "log.db-shm"].map(|name| dir.path().join(name));
        for file in &files {
            std::fs::write(file, "kept").unwrap();
            set_mode(file, 0o644);
        }
        prepare_database(&path).unwrap();
        for file in &files {
            assert_eq!((mode(file), std::fs::read(file).unwrap()), (0o600, b"kept".to_vec()));
        }
    }
}
