//! Logs: `tracing` events to standard output, as lines for people or as JSON, never waited for.
//!
//! Lines go through a bounded queue to a thread of their own. If the reader of standard output is slower than the
//! process, lines are lost and counted, and requests go on. What is logged is decided where it happens.

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

use crate::config::{Key, KeyDoc, Reader};
use crate::metrics::Metrics;
pub(crate) use access_line::ACCESS;
use access_line::AccessLine;

/// Lines that may wait for standard output; at some 200 bytes a line, about 13 MB.
const LINES_WAITING: usize = 65_536;
/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(5);

/// What commands log. Of the store's driver no warnings: it has one about our keep-alive, each time.
const OF_COMMANDS: &str = "warn,scylla=error";

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Human,
    /// One JSON object a line.
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

/// How a process logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

impl TelemetryConfig {
    const FORMAT: Key<LogFormat> = Key::new(
        "telemetry.format",
        Some("human"),
        "",
        "The form of log lines: `human` or `json`.",
        LogFormat::from_str,
    );
    const FILTER: Key<String> = Key::new(
        "telemetry.filter",
        Some("info"),
        "",
        "What is logged: a level, or `target=level` pairs separated by commas; `access` is the target of the line \
         that each request writes.",
        parse_filter,
    );

    /// The settings of this module.
    pub const KEYS: &[KeyDoc] = &[Self::FORMAT.describe(), Self::FILTER.describe()];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let format = reader.read(&Self::FORMAT);
        let filter = reader.read(&Self::FILTER);
        Some(Self { format: format?, filter: filter? })
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

/// Starts logging for the whole process, panics included. The guard writes what still waits when it is dropped.
///
/// Logging that already runs stays as it is: only the first call has an effect.
pub fn init(config: &TelemetryConfig) -> TelemetryGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING)
        .thread_name("log")
        .finish(Gathered::new(standard_output()));
    let lost = writer.error_counter();
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.format {
        LogFormat::Human => {
            let rest = format().with_ansi(false);
            registry.with(lines.event_format(AccessLine { format: config.format, rest })).try_init()
        }
        LogFormat::Json => {
            let rest = format().json().flatten_event(true).with_span_list(false);
            let lines = lines.event_format(AccessLine { format: config.format, rest });
            registry.with(lines.fmt_fields(JsonFields::new())).try_init()
        }
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("not a text");
            let place = panic.location().map(ToString::to_string);
            tracing::error!(target: "panic", message, place, thread = thread::current().name());
        }));
    }
    TelemetryGuard { lost, _worker: worker }
}

/// Starts logging for a command: warnings and errors, to standard error, among the lines that say how it goes.
pub fn init_for_command() {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    // The first call has an effect, as above.
    let _ = tracing_subscriber::registry().with(EnvFilter::new(OF_COMMANDS)).with(lines).try_init();
}

/// Keeps logging alive; held by `main` until the end.
#[derive(Debug)]
#[must_use = "logging ends when the guard is dropped"]
pub struct TelemetryGuard {
    lost: ErrorCounter,
    _worker: WorkerGuard,
}

impl TelemetryGuard {
    /// Shows the lines lost as `allocator_log_lines_lost_total`.
    ///
    /// # Errors
    /// If the metric is already there.
    pub fn expose(&self, metrics: &Metrics) -> Result<(), prometheus::Error> {
        let opts = Opts::new(
            "allocator_log_lines_lost_total",
            "Log lines lost because standard output was slower than the process.",
        );
        metrics.registry().register(Box::new(LostLines {
            lost: self.lost.clone(),
            desc: opts.describe()?,
            opts,
        }))
    }
}

/// Shows the appender's own count as a metric whenever somebody looks.
struct LostLines {
    lost: ErrorCounter,
    desc: Desc,
    opts: Opts,
}

impl Collector for LostLines {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counter) = IntCounter::with_opts(self.opts.clone()) else {
            return Vec::new();
        };
        counter.inc_by(u64::try_from(self.lost.dropped_lines()).unwrap_or(u64::MAX));
        counter.collect()
    }
}

/// Standard output without the line buffer of `std`, which would make a system call of every line.
fn standard_output() -> Box<dyn Write + Send> {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
        Err(_) => Box::new(io::stdout()),
    }
}

/// Writes lines together. The writing thread flushes whenever its queue is empty; resting a moment after each flush
/// lets lines gather, so that a busy process does not wake that thread, and enter the system, for every single one.
struct Gathered<W: Write> {
    inner: BufWriter<W>,
}

impl<W: Write> Gathered<W> {
    fn new(inner: W) -> Self {
        Self { inner: BufWriter::with_capacity(64 * 1024, inner) }
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()?;
        thread::sleep(GATHER);
        Ok(())
    }
}
