//! The secret by which persons' ids are hashed: read from its file, or made once.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemas::PersonKeyHasher;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("the secret of persons' keys in {path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file holds too little.
    #[error("the secret of persons' keys in {0} has less than 32 bytes")]
    Short(PathBuf),
}

/// Reads the secret of a named file, or of `person.secret` in `dir`, which is made if it is not there.
///
/// # Errors
/// When the file cannot be read or made, or holds too little. A named file is never made: another secret would make
/// everyone a new person.
pub(crate) fn open_secret(
    named: Option<&Path>,
    dir: &Path,
) -> Result<PersonKeyHasher, SecretError> {
    let path = named.map_or_else(|| dir.join("person.secret"), Path::to_path_buf);
    let failed = |reason| SecretError::File { path: path.clone(), reason };
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            make(&path).map_err(failed)?
        }
        read => read.map_err(failed)?,
    };
    PersonKeyHasher::new(text.trim_ascii()).ok_or_else(|| SecretError::Short(path.clone()))
}

fn make(path: &Path) -> std::io::Result<Vec<u8>> {
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
    use schemas::{BudgetId, PersonName};

    #[test]
    fn a_secret_is_made_once_and_kept_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = |hasher: PersonKeyHasher| {
            hasher.key(&BudgetId::parse("taxes").unwrap(), &PersonName::parse("p").unwrap())
        };
        let first = key(open_secret(None, dir.path()).unwrap());
        assert_eq!(key(open_secret(None, dir.path()).unwrap()), first);
        let mode =
            std::fs::metadata(dir.path().join("person.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_named_file_is_neither_made_nor_taken_when_short() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        assert!(matches!(open_secret(Some(&named), dir.path()), Err(SecretError::File { .. })));
        std::fs::write(&named, "short").unwrap();
        assert!(matches!(open_secret(Some(&named), dir.path()), Err(SecretError::Short(_))));
    }
}
