//! The secret for hashing persons' ids: read from its file, or created once.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemas::PersonKeyHasher;

/// Why the secret is not available.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or created.
    #[error("the secret of persons' keys in {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The secret in the file is too short.
    #[error("the secret of persons' keys in {0} has less than 32 bytes")]
    Short(PathBuf),
}

/// Reads the secret from the configured file, or from `person.secret` in `dir`. Creates the latter if it does not
/// exist.
///
/// # Errors
/// When the file cannot be read or created, or the secret is too short. A configured file is never created: with another
/// secret, everyone would count as a new person.
pub(crate) fn open_secret(
    configured: Option<&Path>,
    dir: &Path,
) -> Result<PersonKeyHasher, SecretError> {
    let path = configured.map_or_else(|| dir.join("person.secret"), Path::to_path_buf);
    let failed = |reason| SecretError::File { path: path.clone(), reason };
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && configured.is_none() => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            create(&path).map_err(failed)?
        }
        read => read.map_err(failed)?,
    };
    PersonKeyHasher::new(text.trim_ascii()).ok_or_else(|| SecretError::Short(path.clone()))
}

fn create(path: &Path) -> std::io::Result<Vec<u8>> {
    // Two random UUIDs: 244 random bits from the operating system.
    let text = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(text.into_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use schemas::{BudgetId, PersonId};

    #[test]
    fn a_secret_is_created_once_and_readable_only_by_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = |hasher: PersonKeyHasher| {
            hasher.key(&BudgetId::parse("taxes").unwrap(), &PersonId::parse("p").unwrap())
        };
        let first = key(open_secret(None, dir.path()).unwrap());
        assert_eq!(key(open_secret(None, dir.path()).unwrap()), first);
        let mode =
            std::fs::metadata(dir.path().join("person.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_configured_file_is_not_created_and_must_not_be_short() {
        let dir = tempfile::tempdir().unwrap();
        let configured = dir.path().join("configured");
        assert!(matches!(
            open_secret(Some(&configured), dir.path()),
            Err(SecretError::File { .. })
        ));
        std::fs::write(&configured, "short").unwrap();
        assert!(matches!(open_secret(Some(&configured), dir.path()), Err(SecretError::Short(_))));
    }
}
