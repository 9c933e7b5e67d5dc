//! The settings of a service that is its own process: those of every process, storage, and its own.

use super::{ConfigArgs, ConfigFaults, Reader, Settings};
use crate::process::ProcessConfig;

/// Settings of a service. The type of the storage settings belongs to the storage layer.
#[derive(Debug, Clone)]
pub struct ServiceConfig<S, C> {
    /// Logging, HTTP server and readiness.
    pub process: ProcessConfig,
    /// Storage.
    pub storage: S,
    /// The service itself.
    pub own: C,
}

impl<S, C> ServiceConfig<S, C> {
    /// Loads the file, the environment and the flags. `read_storage` and `read_own` read their keys.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn load(
        args: &ConfigArgs,
        read_storage: impl FnOnce(&mut Reader<'_>) -> Option<S>,
        read_own: impl FnOnce(&mut Reader<'_>) -> Option<C>,
    ) -> Result<Self, ConfigFaults> {
        let settings = Settings::load(args)?;
        let mut reader = settings.reader();
        let process = ProcessConfig::read(&mut reader);
        let storage = read_storage(&mut reader);
        let own = read_own(&mut reader);
        let config = || Some(Self { process: process?, storage: storage?, own: own? });
        reader.finish(config())
    }
}
