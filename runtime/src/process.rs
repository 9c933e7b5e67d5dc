//! How a process of ours begins and ends: the settings that all of them have, what they start first, and the code they
//! end with. What it does in between is its own.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::{ConfigFaults, Reader};
use crate::health::{Health, HealthConfig};
use crate::http::HttpConfig;
use crate::metrics::Metrics;
use crate::shutdown;
use crate::telemetry::{self, TelemetryConfig, TelemetryGuard};

/// So long threads that block are waited for after everything else has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// What a shell takes for a wrong use of a command.
const WRONG_SETTINGS: u8 = 2;

/// The settings that all processes have.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Of its log.
    pub telemetry: TelemetryConfig,
    /// Of its server.
    pub http: HttpConfig,
    /// Of its readiness.
    pub health: HealthConfig,
}

impl ProcessConfig {
    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let telemetry = TelemetryConfig::read(reader);
        let http = HttpConfig::read(reader);
        let health = HealthConfig::read(reader);
        Some(Self { telemetry: telemetry?, http: http?, health: health? })
    }
}

/// What every process has from its first moment to its last.
#[derive(Debug)]
pub struct Process {
    /// What it measures.
    pub metrics: Metrics,
    /// Whether it is well.
    pub health: Health,
    /// Cancelled when it has to end: from then on it is unready.
    pub stop: CancellationToken,
    /// Writes the last log lines when the process ends.
    _telemetry: TelemetryGuard,
}

impl Process {
    /// Starts logging, metrics and health, and listens for signals. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the metrics clash: a mistake of ours.
    pub fn start(name: &str, config: &ProcessConfig) -> Result<Self, prometheus::Error> {
        let telemetry = telemetry::init(&config.telemetry);
        let metrics = Metrics::new(name);
        telemetry.expose(&metrics)?;
        let health = Health::new(&config.health);
        health.expose(&metrics)?;
        let stop = shutdown::listen();
        health.drain_with(stop.clone());
        Ok(Self { metrics, health, stop, _telemetry: telemetry })
    }
}

/// Runs a process to its end. What hangs in a folder or a file even then is not waited for.
pub fn run(main: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the process cannot begin: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(main);
    runtime.shutdown_timeout(LAST_PATIENCE);
    code
}

/// The code a process ends with. What went wrong goes to its standard error: 2 for wrong settings, else 1.
pub fn exit_code<E>(name: &str, ended: Result<(), E>) -> ExitCode
where
    E: AsRef<dyn Error + Send + Sync> + Display,
{
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            if error.as_ref().is::<ConfigFaults>() {
                ExitCode::from(WRONG_SETTINGS)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
