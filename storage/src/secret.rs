//! The secret for hashing persons' ids: read from its file, or created once.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemas::{PersonSecret, SecretFingerprint};

use crate::private_files;

/// Why the secret is not available.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or created.
    #[error("the person secret in {file}: {reason}")]
    File {
        /// The file.
        file: SecretFile,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The secret in the file is too short.
    #[error("the person secret in {0} has less than 32 bytes")]
    Short(SecretFile),
    /// There are data, whose persons are known only by a secret that is missing.
    #[error(
        "the person secret {path} is missing, and {data} was made with it: with a new secret everyone would be \
         a new person. Restore the file from a backup; or move the whole data directory away, to begin without them"
    )]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// A file of the data.
        data: PathBuf,
    },
    /// The control topic was lost, and with it the fingerprint: this secret may be another one than that of the data.
    #[error(
        "the log has records, and the control topic has neither the fingerprint of the person secret nor a budget \
         definition: it was lost, or kafka.definitions_topic names another topic. Restore it. Without a backup, look up \
         the fingerprint in the log of an earlier start; if it is {own}, set privacy.person_key_fingerprint={own}"
    )]
    Unconfirmed {
        /// Fingerprint of the secret of this process.
        own: SecretFingerprint,
    },
    /// Another secret is recorded with the data.
    #[error(
        "the person secret is another one than that of the data (fingerprint {own}, recorded {recorded}): with it \
         everyone would be a new person. Configure the secret that the other processes and earlier starts use, in \
         privacy.person_key_secret_file"
    )]
    Other {
        /// Fingerprint of the secret of this process.
        own: SecretFingerprint,
        /// The recorded fingerprint.
        recorded: SecretFingerprint,
    },
}

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// In the file of the setting. Its path is not shown: it may be the secret itself, written where its file belongs.
    Configured,
    /// In the data directory.
    Default(PathBuf),
}

impl fmt::Display for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("the file that privacy.person_key_secret_file names"),
            Self::Default(path) => path.display().fmt(f),
        }
    }
}

/// Reads the secret from the configured file, or from `person.secret` in `dir`. Creates the latter if neither it nor
/// one of the files `data` exists in `dir`.
///
/// # Errors
/// When the file cannot be read or created, or the secret is too short. A configured file is never created, and no file
/// is where there are data: with another secret, everyone would count as a new person.
pub(crate) fn open_secret(
    configured: Option<&Path>,
    dir: &Path,
    data: &[&str],
) -> Result<PersonSecret, SecretError> {
    let path = configured.map_or_else(|| dir.join("person.secret"), Path::to_path_buf);
    let file = || match configured {
        Some(_) => SecretFile::Configured,
        None => SecretFile::Default(path.clone()),
    };
    let failed = |reason| SecretError::File { file: file(), reason };
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && configured.is_none() => {
            if let Some(data) = data.iter().map(|name| dir.join(name)).find(|file| file.exists()) {
                return Err(SecretError::Missing { path, data });
            }
            private_files::create_dir(dir).map_err(failed)?;
            create(&path).map_err(failed)?;
            std::fs::read(&path).map_err(failed)?
        }
        read => read.map_err(failed)?,
    };
    if configured.is_none() {
        private_files::close_file(&path);
    }
    PersonSecret::new(text.trim_ascii()).ok_or_else(|| SecretError::Short(file()))
}

/// Creates a file with a new secret. Keeps the file of a process that creates it at the same time.
fn create(path: &Path) -> std::io::Result<()> {
    // Two random UUIDs: 244 random bits from the operating system.
    let text = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    private_files::create_whole(path, &text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_created_once_and_readable_only_by_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = || open_secret(None, dir.path(), &["log.db", "store.db"]);
        let first = open().unwrap().fingerprint();
        assert_eq!(open().unwrap().fingerprint(), first);
        let mode =
            std::fs::metadata(dir.path().join("person.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a draft is left");
        // With data it is read, and never created.
        std::fs::write(dir.path().join("store.db"), "").unwrap();
        assert_eq!(open().unwrap().fingerprint(), first);
        std::fs::remove_file(dir.path().join("person.secret")).unwrap();
        let refused = open();
        assert!(matches!(refused, Err(SecretError::Missing { .. })), "{refused:?}");
        assert!(!dir.path().join("person.secret").exists());
    }

    #[test]
    fn processes_that_create_a_secret_at_once_share_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || open_secret(None, dir.path(), &[]).unwrap().fingerprint();
        let all = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(all.iter().all(|fingerprint| *fingerprint == all[0]), "{all:?}");
    }

    #[test]
    fn a_configured_file_is_not_created_and_must_not_be_short() {
        let dir = tempfile::tempdir().unwrap();
        let configured = dir.path().join("configured");
        let refused = open_secret(Some(&configured), dir.path(), &[]).unwrap_err();
        assert!(matches!(refused, SecretError::File { .. }), "{refused:?}");
        // Some write the secret itself into the setting.
        assert!(!format!("{refused} {refused:?}").contains("configured\""), "{refused:?}");
        assert!(!refused.to_string().contains(&configured.display().to_string()), "{refused}");
        std::fs::write(&configured, "short").unwrap();
        assert!(matches!(
            open_secret(Some(&configured), dir.path(), &[]),
            Err(SecretError::Short(_))
        ));
    }
}
