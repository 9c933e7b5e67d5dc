//! The query of a history, and the instants that answer it.

use std::ops::Range;

use axum::extract::Query;
use http::Uri;
use jiff::Timestamp;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{HistoryInstant, HistoryStep, parse_rfc3339};

use crate::history::{MAX_INSTANTS, SETTLING_DELAY};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// The parameters of a request. Each is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HistoryQuery {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    step: Option<HistoryStep>,
    limit: Option<u32>,
    /// The form that the query names, before what `Accept` names.
    pub format: Option<Format>,
}

impl HistoryQuery {
    /// Parses a query.
    ///
    /// # Errors
    /// A problem that names every fault.
    pub fn parse(uri: &Uri) -> Result<Self, Problem> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Problem::new(ProblemKind::Malformed).detail("the query is malformed"));
        };
        let (mut query, mut faults) = (Self::default(), Faults::default());
        for (name, value) in pairs {
            match name.as_str() {
                "from" | "to" => match parse_rfc3339(&value) {
                    Ok(at) if name == "from" => query.from = Some(at),
                    Ok(at) => query.to = Some(at),
                    Err(fault) => faults.malformed(name, fault.to_string()),
                },
                "step" => match value.parse::<HistoryStep>() {
                    Ok(step) => query.step = Some(step),
                    Err(error) => faults.malformed("step", error.to_string()),
                },
                "limit" => match value.parse::<u32>() {
                    Ok(limit @ 1..=MAX_INSTANTS) => query.limit = Some(limit),
                    _ => faults
                        .malformed("limit", format!("must be a number from 1 to {MAX_INSTANTS}")),
                },
                "format" => match value.as_str() {
                    "json" => query.format = Some(Format::Json),
                    "csv" => query.format = Some(Format::Csv),
                    _ => faults.malformed("format", "must be `json` or `csv`"),
                },
                _ => {}
            }
        }
        if query.from.is_some_and(|from| query.to.is_some_and(|to| from > to)) {
            faults.malformed("from", "must not be after `to`");
        }
        if faults.is_empty() { Ok(query) } else { Err(faults.into_problem(ProblemKind::Malformed)) }
    }

    /// Returns the instants that answer the query at a time, so many at most.
    pub fn page(&self, now_ms: u64, max_instants: u32) -> HistoryPage {
        let newest_ms = now_ms.saturating_sub(SETTLING_DELAY.as_millis() as u64);
        let to_ms = self.to.map_or(newest_ms, milliseconds).min(newest_ms);
        let step = self.step.unwrap_or_else(|| match self.from {
            Some(from) => step_of_span(to_ms.saturating_sub(milliseconds(from))),
            None => HistoryStep::Hour,
        });
        let from_ms =
            self.from.map_or_else(|| to_ms.saturating_sub(default_span_ms(step)), milliseconds);
        // Inclusive on both sides.
        let first = step.last_instant(from_ms.saturating_add(step.ms() - 1));
        let first = first.max(step.oldest_kept(now_ms));
        let end = step.next_instant(to_ms).max(first);
        let limit = self.limit.map_or(max_instants, |limit| limit.min(max_instants));
        let page_end = HistoryInstant(first.0.saturating_add(limit)).min(end);
        let next = (page_end < end).then_some(page_end);
        HistoryPage { step, instants: first..page_end, next, to: self.to }
    }
}

/// The instants of one page of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HistoryPage {
    pub step: HistoryStep,
    pub instants: Range<HistoryInstant>,
    /// The first instant of the next page; `None` on the last one.
    pub next: Option<HistoryInstant>,
    /// The time up to which the client asks.
    pub to: Option<Timestamp>,
}

/// Returns the step that suits a span of time: enough points for a line, and not too many for a page.
pub(in crate::routes) fn step_of_span(span_ms: u64) -> HistoryStep {
    if span_ms <= 2 * HOUR_MS {
        HistoryStep::Minute
    } else if span_ms <= 7 * DAY_MS {
        HistoryStep::Hour
    } else {
        HistoryStep::Day
    }
}

fn default_span_ms(step: HistoryStep) -> u64 {
    match step {
        HistoryStep::Minute => 2 * HOUR_MS,
        HistoryStep::Hour => 7 * DAY_MS,
        HistoryStep::Day => 366 * DAY_MS,
    }
}

/// Returns milliseconds since 1970; times before it count as 1970.
fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Half a minute past a full hour and minute: the instant of the hour is served.
    const NOW: &str = "2026-11-20T21:00:30Z";

    fn query(text: &str) -> HistoryQuery {
        HistoryQuery::parse(&format!("/?{text}").parse().unwrap()).unwrap()
    }

    fn page(text: &str) -> HistoryPage {
        query(text).page(milliseconds(NOW.parse().unwrap()), MAX_INSTANTS)
    }

    fn times(page: &HistoryPage) -> (String, String) {
        let time = |instant: u32| {
            let ms = HistoryInstant(instant).at_ms(page.step);
            Timestamp::from_millisecond(ms as i64).unwrap().to_string()
        };
        (time(page.instants.start.0), time(page.instants.end.0 - 1))
    }

    #[test]
    fn both_ends_are_inclusive_and_moved_to_full_steps() {
        for (text, step, first, last) in [
            ("", "hour", "2026-11-13T21:00:00Z", "2026-11-20T21:00:00Z"),
            ("step=minute", "minute", "2026-11-20T19:00:00Z", "2026-11-20T21:00:00Z"),
            ("step=day", "day", "2025-11-20T00:00:00Z", "2026-11-20T00:00:00Z"),
            ("from=2026-11-20T19:30:00Z", "minute", "2026-11-20T19:30:00Z", "2026-11-20T21:00:00Z"),
            ("from=2026-11-19T19:30:01Z", "hour", "2026-11-19T20:00:00Z", "2026-11-20T21:00:00Z"),
            ("from=2026-10-19T19:30:00Z", "day", "2026-10-20T00:00:00Z", "2026-11-20T00:00:00Z"),
            (
                "from=2026-11-20T18:00:00Z&to=2026-11-20T20:59:59Z&step=hour",
                "hour",
                "2026-11-20T18:00:00Z",
                "2026-11-20T20:00:00Z",
            ),
        ] {
            let page = page(text);
            assert_eq!(page.step.as_str(), step, "{text}");
            assert_eq!(times(&page), (first.to_owned(), last.to_owned()), "{text}");
            assert_eq!(page.next, None, "{text}");
        }
    }

    #[test]
    fn nothing_is_served_that_is_expired_or_not_over() {
        let oldest = page("step=minute&from=2020-01-01T00:00:00Z&limit=1");
        assert_eq!(times(&oldest).0, "2026-11-18T21:01:00Z");
        let newest = page("step=minute&from=2026-11-20T20:59:00Z&to=2030-01-01T00:00:00Z");
        assert_eq!(times(&newest).1, "2026-11-20T21:00:00Z");
        for empty in ["from=2027-01-01T00:00:00Z&step=day", "to=1960-01-01T00:00:00Z&step=minute"] {
            assert!(page(empty).instants.is_empty(), "{empty}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let whole = page("step=hour&from=2026-11-01T00:00:00Z");
        let (mut from, mut seen) = ("2026-11-01T00:00:00Z".to_owned(), Vec::new());
        loop {
            let page = page(&format!("step=hour&from={from}&limit=100"));
            seen.extend(page.instants.start.0..page.instants.end.0);
            let Some(next) = page.next else { break };
            from = Timestamp::from_millisecond(next.at_ms(page.step) as i64).unwrap().to_string();
        }
        assert_eq!(seen, (whole.instants.start.0..whole.instants.end.0).collect::<Vec<_>>());
    }

    #[test]
    fn every_fault_is_named() {
        let text = "/?from=2026-11-20T00:00:00Z[UTC]&to=2026-11-20&step=year&limit=1001&format=xml";
        let problem = HistoryQuery::parse(&text.parse().unwrap()).unwrap_err();
        let named: Vec<_> =
            problem.recorded_faults().iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(named, ["from", "to", "step", "limit", "format"]);
        let repeated = format!("/?{}", "to=&".repeat(1_000));
        let problem = HistoryQuery::parse(&repeated.parse().unwrap()).unwrap_err();
        assert_eq!(problem.recorded_faults().len(), 100);
        let turned = "/?from=2026-11-20T00:00:00Z&to=2026-11-19T00:00:00Z";
        assert!(HistoryQuery::parse(&turned.parse().unwrap()).is_err());
    }
}
