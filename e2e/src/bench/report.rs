//! Rows of the benchmark's table.

use std::fmt;

/// How much of a reason a row of the table has room for.
const REASON: usize = 60;

/// One figure beside its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    figure: String,
    value: String,
    limit: String,
    /// Whether the limit is kept; nothing for what is only told.
    kept: Option<bool>,
}

impl Row {
    /// A figure that has no limit of its own.
    pub fn told(figure: &str, value: String) -> Self {
        Self { figure: figure.to_owned(), value, limit: String::new(), kept: None }
    }

    /// A figure that must be at least a share of another one that was measured beside it.
    pub fn share(figure: &str, what: &str, ours: f64, theirs: f64, least_percent: f64) -> Self {
        let percent = 100.0 * ours / theirs;
        Self {
            figure: figure.to_owned(),
            value: format!("{} of {} {what} = {percent:.1} %", thousands(ours), thousands(theirs)),
            limit: format!("at least {least_percent} %"),
            kept: Some(percent >= least_percent),
        }
    }

    /// A figure that must stay below a bound.
    pub fn below(figure: &str, value: f64, bound: f64, unit: &str) -> Self {
        Self {
            figure: figure.to_owned(),
            value: format!("{value:.2} {unit}"),
            limit: format!("at most {bound} {unit}"),
            kept: Some(value <= bound),
        }
    }

    /// A figure that could not be measured, with the beginning of the reason.
    pub fn failed(figure: &str, error: &anyhow::Error) -> Self {
        let reason = format!("{error:#}");
        let first_line = reason.lines().next().unwrap_or_default();
        Self {
            figure: figure.to_owned(),
            value: first_line.chars().take(REASON).collect(),
            limit: "to be measured".to_owned(),
            kept: Some(false),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.kept {
            Some(true) => "PASS",
            Some(false) => "FAIL",
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

/// A progress line.
pub fn say(line: impl std::fmt::Display) {
    eprintln!("bench: {line}");
}

/// A whole number with its thousands apart.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints the table. Whether no limit was missed.
pub fn print(rows: &[Row]) -> bool {
    let width = |of: fn(&Row) -> &str| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).max(6)
    };
    let (figures, values, limits) =
        (width(|row| &row.figure), width(|row| &row.value), width(|row| &row.limit));
    println!("| {:figures$} | {:values$} | {:limits$} |      |", "figure", "value", "limit");
    println!("|-{:-<figures$}-|-{:-<values$}-|-{:-<limits$}-|------|", "", "", "");
    for row in rows {
        let Row { figure, value, limit, .. } = row;
        let verdict = row.verdict();
        println!("| {figure:figures$} | {value:values$} | {limit:limits$} | {verdict:4} |");
    }
    rows.iter().all(|row| row.kept != Some(false))
}

/// The value below which so many percent of the samples are. The samples are sorted by this.
pub fn percentile(samples: &mut [f64], percent: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = (samples.len() as f64 * percent / 100.0).ceil() as usize;
    samples.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
