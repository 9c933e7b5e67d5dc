//! Formats the access log line of each request directly; other events use the standard formatter.
//!
//! A request served from memory costs little more than its log line, so this line has a fast path. Its output is the
//! same as the standard formatter's.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;

/// The target of the line per request.
pub(crate) const ACCESS: &str = "access";

/// Formats access lines itself, and other events with `other`.
pub(super) struct AccessLine<F> {
    pub(super) format: LogFormat,
    pub(super) other: F,
}

impl<S, N, F> FormatEvent<S, N> for AccessLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target() != ACCESS {
            return self.other.format_event(context, out, event);
        }
        let json = self.format == LogFormat::Json;
        out.write_str(if json { "{\"timestamp\":\"" } else { "" })?;
        SystemTime.format_time(&mut out)?;
        out.write_str(if json { "\",\"level\":\"" } else { "  " })?;
        out.write_str(metadata.level().as_str())?;
        out.write_str(if json { "\"" } else { " access:" })?;
        let mut fields = Fields { out: &mut out, json, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        out.write_str(if json { ",\"target\":\"access\"}\n" } else { "\n" })
    }
}

/// Writes the fields of an event.
struct Fields<'a, W: Write> {
    out: &'a mut W,
    json: bool,
    result: fmt::Result,
}

impl<W: Write> Fields<'_, W> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut W) -> fmt::Result) {
        let name = field.name();
        let named = |out: &mut W, json: bool| {
            for part in if json { [",\"", name, "\":"] } else { [" ", name, "="] } {
                out.write_str(part)?;
            }
            value(out)
        };
        if self.result.is_ok() {
            self.result = named(self.out, self.json);
        }
    }
}

impl<W: Write> Visit for Fields<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |out| quoted(out, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out| write!(out, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |out| quoted(out, &format!("{value:?}")));
    }
}

/// Writes a JSON string, which is readable as text too.
fn quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.write_char('"')?;
        out.write_str(text)?;
        return out.write_char('"');
    }
    out.write_str(&serde_json::to_string(text).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::Value;
    use std::sync::Arc;
    use tracing_subscriber::fmt::format::{JsonFields, format};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(event: impl FnOnce()) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(AccessLine {
                format: LogFormat::Json,
                other: format().json().flatten_event(true),
            })
            .fmt_fields(JsonFields::new())
            .with_writer(move || sink.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), event);
        let text = lines.0.lock().clone();
        String::from_utf8(text).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn an_access_line_equals_the_standard_formatters_json(
            id in ".*", status: u16, bytes: Option<u64>,
        ) {
            let access = log(|| tracing::info!(target: "access", id = id.as_str(), status, bytes));
            let standard = log(|| tracing::info!(target: "other", id = id.as_str(), status, bytes));
            proptest::prop_assert_eq!(access.matches('\n').count(), 1);
            let mut access: Value = serde_json::from_str(&access).unwrap();
            let mut standard: Value = serde_json::from_str(&standard).unwrap();
            for line in [&mut access, &mut standard] {
                let fields = line.as_object_mut().unwrap();
                fields.remove("timestamp").unwrap();
                fields.remove("target").unwrap();
            }
            proptest::prop_assert_eq!(access, standard);
        }
    }
}
