//! What an expression of PromQL names, as far as our alerts and our dashboard go: metrics and labels.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::Metric;

/// Metrics that are not ours to define: Prometheus' own, and those of the operating system's process.
const FOREIGN: [&str; 3] = ["up", "process_cpu_seconds_total", "process_resident_memory_bytes"];
/// The labels that Prometheus gives to whatever it scrapes.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// An expression without what stands in quotes, which can be neither a metric nor a label.
#[derive(Debug)]
pub struct Expression {
    text: String,
}

impl Expression {
    pub fn new(text: &str) -> Self {
        Self { text: text.split('"').step_by(2).collect() }
    }

    /// Our metrics, and those of others that are known here.
    pub fn metrics(&self) -> BTreeSet<&str> {
        let is_metric = |word: &&str| word.starts_with("allocator_") || FOREIGN.contains(word);
        self.text.split(|c| !is_of_a_word(c)).filter(is_metric).collect()
    }

    /// Each metric that is narrowed down, with a label by which it is.
    pub fn selections(&self) -> Vec<(&str, &str)> {
        let mut selections = Vec::new();
        for (at, _) in self.text.match_indices('{') {
            let before = &self.text[..at];
            let metric = before.rsplit(|c| !is_of_a_word(c)).next().unwrap();
            let matchers = self.text[at + 1..].split('}').next().unwrap();
            let labels =
                matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap());
            selections.extend(labels.map(|label| (metric, label.trim())));
        }
        selections
    }

    /// The labels by which samples are put together.
    pub fn groupings(&self) -> BTreeSet<&str> {
        assert!(!self.text.contains("without"), "not understood here: {}", self.text);
        let lists = self.text.split(" by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        lists.flat_map(|list| list.split(',')).map(str::trim).collect()
    }

    /// The labels of what it comes to: those it groups by, or all that its metrics have.
    pub fn outcome<'a>(&'a self, known: &'a BTreeMap<String, Metric>) -> BTreeSet<&'a str> {
        if self.text.contains(" by (") {
            return self.groupings();
        }
        let labels = self.metrics().into_iter().filter_map(|metric| labels_of(metric, known));
        labels.flatten().collect()
    }
}

/// The labels that a metric has, Prometheus' own among them; nothing for a metric that nobody shows.
pub fn labels_of<'a>(
    metric: &str,
    known: &'a BTreeMap<String, Metric>,
) -> Option<BTreeSet<&'a str>> {
    let mut labels = BTreeSet::from(OF_TARGETS);
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

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
