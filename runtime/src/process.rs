//! Start and end of every process: shared settings, startup and exit code. Each service owns what runs in between.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::{ConfigFaults, Reader};
use crate::health::{Health, HealthConfig};
use crate::http::HttpConfig;
use crate::metrics::Metrics;
use crate::open_files;
use crate::shutdown;
use crate::stall_watch;
use crate::telemetry::{self, TelemetryConfig, TelemetryGuard};

/// How long blocked threads are waited for after everything else has ended.
const BLOCKED_THREADS_TIMEOUT: Duration = Duration::from_secs(1);

/// The conventional exit code of a wrong use of a command.
const EXIT_CONFIG_ERROR: u8 = 2;

/// Settings of every process.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Logging.
    pub telemetry: TelemetryConfig,
    /// The HTTP server.
    pub http: HttpConfig,
    /// Readiness.
    pub health: HealthConfig,
}

impl ProcessConfig {
    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let telemetry = TelemetryConfig::read(reader);
        let http = HttpConfig::read(reader);
        let health = HealthConfig::read(reader);
        Some(Self { telemetry: telemetry?, http: http?, health: health? })
    }
}

/// The components that every process has from start to end.
#[derive(Debug)]
pub struct Process {
    /// The metrics registry.
    pub metrics: Metrics,
    /// The readiness.
    pub health: Health,
    /// Cancelled when the process must shut down. The process is unready from then on.
    pub stop: CancellationToken,
    /// Flushes the log when the process ends.
    _telemetry: TelemetryGuard,
}

impl Process {
    /// Starts logging, metrics and health, and listens for signals. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If a metric name is taken: a bug.
    pub fn start(name: &str, config: &ProcessConfig) -> Result<Self, prometheus::Error> {
        let telemetry = telemetry::init(&config.telemetry);
        let open_files = open_files::raise_limit();
        tracing::info!(open_files, "raised the limit of open files");
        let metrics = Metrics::new(name);
        telemetry.expose(&metrics)?;
        let health = Health::new(&config.health);
        health.expose(&metrics)?;
        let stop = shutdown::listen();
        health.drain_on(stop.clone());
        Ok(Self { metrics, health, stop, _telemetry: telemetry })
    }
}

/// Runs a process to its end. Threads blocked in file I/O are abandoned after a timeout.
pub fn run(main: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("failed to start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = stall_watch::watch(runtime.handle()) {
        eprintln!("failed to start the thread that watches the async runtime: {error}");
        return ExitCode::FAILURE;
    }
    let code = runtime.block_on(main);
    runtime.shutdown_timeout(BLOCKED_THREADS_TIMEOUT);
    code
}

/// Returns the exit code and prints the error: 2 for a wrong configuration, 1 for any other error.
pub fn exit_code<E>(name: &str, result: Result<(), E>) -> ExitCode
where
    E: AsRef<dyn Error + Send + Sync> + Display,
{
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            if error.as_ref().is::<ConfigFaults>() {
                ExitCode::from(EXIT_CONFIG_ERROR)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
