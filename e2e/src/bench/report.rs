//! The table of the benchmark.

use std::fmt;

use super::limits::Ratio;

/// Maximum length of an error in the table.
const MAX_ERROR_CHARS: usize = 60;

/// One figure with its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    figure: String,
    value: String,
    limit: String,
    /// `None` without a limit.
    verdict: Option<Verdict>,
}

/// Whether a figure is within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    /// Better than the limit can explain.
    WrongLimit,
}

impl Verdict {
    fn of(passed: bool) -> Self {
        if passed { Self::Pass } else { Self::Fail }
    }
}

impl Row {
    /// A figure without a limit.
    pub fn info(figure: &str, value: String) -> Self {
        Self { figure: figure.to_owned(), value, limit: String::new(), verdict: None }
    }

    /// A figure that is compared with a baseline of the same run.
    pub fn share(figure: &str, what: &str, ours: f64, baseline: f64, limits: Ratio) -> Self {
        let percent = 100.0 * ours / baseline;
        let Ratio { min_percent, max_percent } = limits;
        Self {
            figure: figure.to_owned(),
            value: format!(
                "{} of {} {what} = {percent:.1} %",
                thousands(ours),
                thousands(baseline)
            ),
            limit: format!("{min_percent} to {max_percent} %"),
            verdict: Some(if percent > max_percent {
                Verdict::WrongLimit
            } else {
                Verdict::of(percent >= min_percent)
            }),
        }
    }

    /// A figure with a maximum.
    pub fn at_most(figure: &str, value: f64, max: f64, unit: &str) -> Self {
        Self {
            figure: figure.to_owned(),
            value: format!("{value:.2} {unit}"),
            limit: format!("at most {max} {unit}"),
            verdict: Some(Verdict::of(value <= max)),
        }
    }

    /// A figure that could not be measured, with the start of the error.
    pub fn failed(figure: &str, error: &anyhow::Error) -> Self {
        let text = format!("{error:#}");
        let first_line = text.lines().next().unwrap_or_default();
        Self {
            figure: figure.to_owned(),
            value: first_line.chars().take(MAX_ERROR_CHARS).collect(),
            limit: "to be measured".to_owned(),
            verdict: Some(Verdict::Fail),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.verdict {
            Some(Verdict::Pass) => "PASS",
            Some(Verdict::Fail) => "FAIL",
            Some(Verdict::WrongLimit) => "WRONG LIMIT",
            None => "",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.figure, self.value)?;
        match self.verdict() {
            "" => Ok(()),
            verdict => write!(f, ", {} {verdict}", self.limit),
        }
    }
}

/// Prints a progress line to standard error.
pub fn log_progress(line: impl std::fmt::Display) {
    eprintln!("bench: {line}");
}

/// Formats a whole number with thousands separators.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints the table. Returns whether no figure failed.
pub fn print(rows: &[Row]) -> bool {
    let width = |column: fn(&Row) -> &str| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0).max(6)
    };
    let (figures, values, limits) =
        (width(|row| &row.figure), width(|row| &row.value), width(|row| &row.limit));
    println!("| {:figures$} | {:values$} | {:limits$} |             |", "figure", "value", "limit");
    println!("|-{:-<figures$}-|-{:-<values$}-|-{:-<limits$}-|-------------|", "", "", "");
    for row in rows {
        let Row { figure, value, limit, .. } = row;
        let verdict = row.verdict();
        println!("| {figure:figures$} | {value:values$} | {limit:limits$} | {verdict:11} |");
    }
    rows.iter().all(|row| matches!(row.verdict, None | Some(Verdict::Pass)))
}

/// Computes a percentile. Sorts the samples.
pub fn percentile(samples: &mut [f64], percent: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (samples.len() as f64 * percent / 100.0).ceil() as usize;
    samples.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Ratio = Ratio { min_percent: 60.0, max_percent: 110.0 };

    fn passes(percent: f64) -> bool {
        print(&[Row::share("catch-up", "records/s", percent, 100.0, LIMITS)])
    }

    #[test]
    fn a_figure_below_its_limit_fails() {
        assert!(!passes(59.9));
        assert!(passes(60.0) && passes(109.9));
        assert!(!print(&[Row::at_most("take-over", 3.1, 3.0, "s")]));
        assert!(print(&[
            Row::at_most("take-over", 0.1, 3.0, "s"),
            Row::info("rounds", "3".into())
        ]));
    }

    #[test]
    fn a_figure_that_beats_its_baseline_by_more_than_a_tenth_fails_as_a_wrong_limit() {
        let row = Row::share("catch-up", "records/s", 110.5, 100.0, LIMITS);
        assert_eq!(row.verdict(), "WRONG LIMIT");
        assert!(!print(&[row]));
    }
}
