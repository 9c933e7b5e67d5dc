//! Logging: writes `tracing` events to standard output, as text or JSON, without blocking.
//!
//! A separate thread writes the lines from a bounded queue. If the reader of standard output is slower than the
//! process, lines are dropped and counted, and requests are not delayed.

mod access_line;

use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Opts};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, format};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::settings;
use crate::metrics::Metrics;
pub(crate) use access_line::ACCESS;
use access_line::AccessLine;

/// Maximum number of queued lines; at about 200 bytes per line, 13 MB.
const MAX_QUEUED_LINES: usize = 65_536;
/// How long the writer waits after a flush, to write more lines at once.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// The log filter of commands. The store's driver warns about our keep-alive at every connect.
const COMMAND_FILTER: &str = "warn,scylla=error";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("expected human or json".to_owned()),
        }
    }
}

settings! {
    /// Format and filter of the log.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TelemetryConfig {
        /// Format of log lines: `human` or `json`.
        pub format: LogFormat = "telemetry.format", default "human",
            unit "", parse LogFormat::from_str;
        /// Log level, or comma-separated `target=level` pairs; `access` is the target of the line per request.
        pub filter: String = "telemetry.filter", default "info",
            unit "", parse parse_filter;
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("expected a level (error, warn, info, debug, trace) or target=level pairs"
                .to_owned())
        }
    }
}

/// Starts logging for the whole process, including panics. Dropping the guard writes the queued lines.
///
/// Only the first call in a process has an effect.
pub fn init(config: &TelemetryConfig) -> TelemetryGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .thread_name("log")
        .finish(BatchingWriter::new(standard_output()));
    let dropped_lines = writer.error_counter();
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match config.format {
        LogFormat::Human => {
            let other = format().with_ansi(false);
            registry
                .with(lines.event_format(AccessLine { format: config.format, other }))
                .try_init()
        }
        LogFormat::Json => {
            let other = format().json().flatten_event(true).with_span_list(false);
            let lines = lines.event_format(AccessLine { format: config.format, other });
            registry.with(lines.fmt_fields(JsonFields::new())).try_init()
        }
    };
    if installed.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no text");
            let location = panic.location().map(ToString::to_string);
            tracing::error!(target: "panic", message, location, thread = thread::current().name());
        }));
    }
    TelemetryGuard { dropped_lines, _worker: worker }
}

/// Starts logging for a command: warnings and errors, to standard error.
pub fn init_for_command() {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    // Only the first call has an effect, as above.
    let _ =
        tracing_subscriber::registry().with(EnvFilter::new(COMMAND_FILTER)).with(lines).try_init();
}

/// Keeps the log writer alive. `main` holds it until the process ends.
#[derive(Debug)]
#[must_use = "logging stops when the guard is dropped"]
pub struct TelemetryGuard {
    dropped_lines: ErrorCounter,
    _worker: WorkerGuard,
}

impl TelemetryGuard {
    /// Exports the number of dropped lines as `allocator_log_lines_lost_total`.
    ///
    /// # Errors
    /// If the metric is already registered.
    pub fn expose(&self, metrics: &Metrics) -> Result<(), prometheus::Error> {
        let opts = Opts::new(
            "allocator_log_lines_lost_total",
            "Log lines dropped because standard output was slower than the process.",
        );
        metrics.registry().register(Box::new(DroppedLines {
            dropped_lines: self.dropped_lines.clone(),
            desc: opts.describe()?,
            opts,
        }))
    }
}

/// Exports the appender's counter at each scrape.
struct DroppedLines {
    dropped_lines: ErrorCounter,
    desc: Desc,
    opts: Opts,
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counter) = IntCounter::with_opts(self.opts.clone()) else {
            return Vec::new();
        };
        counter.inc_by(u64::try_from(self.dropped_lines.dropped_lines()).unwrap_or(u64::MAX));
        counter.collect()
    }
}

/// Returns standard output without the line buffer of `std`. The buffer would cause a system call per line.
fn standard_output() -> Box<dyn Write + Send> {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
        Err(_) => Box::new(io::stdout()),
    }
}

/// Writes lines in batches.
///
/// The writer thread flushes whenever its queue is empty. The pause after each flush lets lines accumulate, so that a
/// busy process does not wake the thread for every line.
struct BatchingWriter<W: Write> {
    inner: BufWriter<W>,
}

impl<W: Write> BatchingWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner: BufWriter::with_capacity(64 * 1024, inner) }
    }
}

impl<W: Write> Write for BatchingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()?;
        thread::sleep(FLUSH_PAUSE);
        Ok(())
    }
}
