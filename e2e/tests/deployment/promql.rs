//! Extracts metrics and labels from PromQL, for the subset that our alerts and dashboards use.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::Metric;

/// Metrics that our code does not define: Prometheus' own, and those of the process collector.
const FOREIGN: [&str; 3] = ["up", "process_cpu_seconds_total", "process_resident_memory_bytes"];
/// Labels that Prometheus adds to every scraped sample.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// A PromQL expression without quoted text, which contains neither metrics nor labels.
#[derive(Debug)]
pub struct Expression {
    text: String,
}

impl Expression {
    pub fn new(text: &str) -> Self {
        Self { text: text.split('"').step_by(2).collect() }
    }

    /// Returns the metrics of the expression.
    pub fn metrics(&self) -> BTreeSet<&str> {
        let is_metric = |word: &&str| word.starts_with("allocator_") || FOREIGN.contains(word);
        self.text.split(|c| !is_word_char(c)).filter(is_metric).collect()
    }

    /// Returns each label matcher as a pair of metric and label.
    pub fn selections(&self) -> Vec<(&str, &str)> {
        let mut selections = Vec::new();
        for (at, _) in self.text.match_indices('{') {
            let before = &self.text[..at];
            let metric = before.rsplit(|c| !is_word_char(c)).next().unwrap();
            let matchers = self.text[at + 1..].split('}').next().unwrap();
            let labels =
                matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap());
            selections.extend(labels.map(|label| (metric, label.trim())));
        }
        selections
    }

    /// Returns the labels of `by (...)` clauses.
    pub fn groupings(&self) -> BTreeSet<&str> {
        assert!(!self.text.contains(" without ("), "not supported by this parser: {}", self.text);
        let lists = self.text.split(" by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        lists.flat_map(|list| list.split(',')).map(str::trim).collect()
    }

    /// Returns the labels of the result: those of `by (...)`, or all labels of the metrics.
    pub fn outcome<'a>(&'a self, known: &'a BTreeMap<String, Metric>) -> BTreeSet<&'a str> {
        if self.text.contains(" by (") {
            return self.groupings();
        }
        let labels = self.metrics().into_iter().filter_map(|metric| labels_of(metric, known));
        labels.flatten().collect()
    }
}

/// Returns a metric's labels, including Prometheus' own; `None` for a metric that the code does not expose.
pub fn labels_of<'a>(
    metric: &str,
    known: &'a BTreeMap<String, Metric>,
) -> Option<BTreeSet<&'a str>> {
    let mut labels = BTreeSet::from(TARGET_LABELS);
    if FOREIGN.contains(&metric) {
        return Some(labels);
    }
    let ours = known.get(metric).or_else(|| {
        let histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part))?;
        known.get(histogram).filter(|metric| metric.is_histogram)
    })?;
    labels.extend(ours.labels.iter().map(String::as_str));
    if metric.ends_with("_bucket") {
        labels.insert("le");
    }
    Some(labels)
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
