//! The embedded files: their names, their directory, and the person secret beside them.

use std::path::PathBuf;

use schemas::PersonSecret;

use super::StorageConfig;
use crate::open_error::OpenError;
use crate::private_files;
use crate::secret::open_secret;

/// File name of the embedded log.
pub(super) const LOG_FILE: &str = "log.db";
/// File name of the embedded store.
pub(super) const STORE_FILE: &str = "store.db";
/// File name of the embedded signals.
pub(super) const SIGNALS_FILE: &str = "signals.db";
/// File name of the embedded control topic.
pub(super) const CONTROL_FILE: &str = "definitions.db";

impl StorageConfig {
    /// Returns the person secret. Call it before the embedded files are created: a missing secret is created only where
    /// these files do not exist.
    ///
    /// # Errors
    /// If its secret cannot be read or created, or is missing where there is data.
    pub fn person_secret(&self) -> Result<PersonSecret, OpenError> {
        let data = [LOG_FILE, STORE_FILE];
        Ok(open_secret(self.person_key_secret_file.as_deref(), &self.sqlite_dir, &data)?)
    }

    /// Returns the path of an embedded file, and creates its directory.
    pub(super) fn embedded_file(&self, name: &str) -> Result<PathBuf, OpenError> {
        private_files::create_dir(&self.sqlite_dir)
            .map_err(|error| OpenError::invalid("the embedded files", error))?;
        Ok(self.sqlite_dir.join(name))
    }
}
