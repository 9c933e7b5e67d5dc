//! The settings of a service that is a process of its own: what all of them have, and its own.

use runtime::config::{ConfigArgs, ConfigFaults, Reader, Settings};
use runtime::process::ProcessConfig;

use crate::config::StorageConfig;

/// The settings of one service.
#[derive(Debug, Clone)]
pub struct ServiceConfig<C> {
    /// Of logging, the server and readiness.
    pub process: ProcessConfig,
    /// Where everything rests: where several processes can reach it.
    pub storage: StorageConfig,
    /// Of the service itself.
    pub own: C,
}

impl<C> ServiceConfig<C> {
    /// Reads the file, the environment and the flags; `read_own` reads the service's own keys.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn load(
        args: &ConfigArgs,
        read_own: impl FnOnce(&mut Reader<'_>) -> Option<C>,
    ) -> Result<Self, ConfigFaults> {
        let settings = Settings::load(args)?;
        let mut reader = settings.reader();
        let process = ProcessConfig::read(&mut reader);
        let storage = StorageConfig::read_shared(&mut reader);
        let own = read_own(&mut reader);
        let whole = || Some(Self { process: process?, storage: storage?, own: own? });
        reader.finish(whole())
    }
}
