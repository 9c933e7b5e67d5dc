//! Extracts binaries, settings and metrics from the code, to compare the deployment files with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Reads a file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Lists the binaries of the workspace.
pub fn binaries() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|package| package["targets"].as_array().unwrap())
        .filter(|target| target["kind"].as_array().unwrap().iter().any(|kind| kind == "bin"))
        .map(|target| target["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Lists all settings from `docs/configuration.md`, which another test compares with the code.
pub fn settings() -> BTreeSet<String> {
    let document = read("docs/configuration.md");
    let (_, reference) = document.split_once("<!-- configuration -->").unwrap();
    let (reference, _) = reference.split_once("<!-- /configuration -->").unwrap();
    reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// A metric as the sources register it.
#[derive(Debug, Clone, Default)]
pub struct Metric {
    /// Whether the metric is a histogram, with `_bucket`, `_sum` and `_count`.
    pub is_histogram: bool,
    /// The labels of its samples, without those that Prometheus adds.
    pub labels: BTreeSet<String>,
}

/// Extracts the metrics that the sources register.
pub fn metrics() -> BTreeMap<String, Metric> {
    const REGISTRARS: [&str; 9] = [
        "counter(",
        "counter_vec(",
        "float_counter_vec(",
        "float_gauge(",
        "gauge(",
        "gauge_vec(",
        "histogram(",
        "histogram_vec(",
        "Opts::new(",
    ];
    let mut metrics = BTreeMap::new();
    for source in sources(&root()) {
        let text = inline_label_lists(fs::read_to_string(&source).unwrap());
        for registrar in REGISTRARS {
            for (at, _) in text.match_indices(registrar) {
                let registration = text[at + registrar.len()..].trim_start();
                let Some((name, rest)) =
                    registration.strip_prefix('"').and_then(|text| text.split_once('"'))
                else {
                    continue;
                };
                let name = name.strip_prefix("allocator_").unwrap_or(name);
                let is_histogram = registrar.starts_with("histogram");
                let metric = Metric { is_histogram, labels: labels(rest) };
                metrics.insert(format!("allocator_{name}"), metric);
            }
        }
    }
    metrics
}

/// Replaces the names of constant label lists in a source by their values.
fn inline_label_lists(source: String) -> String {
    let constants: Vec<(String, String)> = source
        .split("\nconst ")
        .skip(1)
        .filter_map(|constant| {
            let (name, rest) = constant.split_once(": &[&str] = ")?;
            Some((name.to_owned(), rest.split_once(';')?.0.to_owned()))
        })
        .collect();
    constants.iter().fold(source, |text, (name, list)| text.replace(name, list))
}

/// Extracts the labels from a registration's text after the metric's name.
fn labels(registration: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    let mut in_list = false;
    // Every other part is quoted text: a label, or the help, which may contain anything.
    for (index, part) in registration.split('"').enumerate() {
        if index % 2 == 1 {
            if in_list {
                labels.insert(part.to_owned());
            }
        } else if part.contains([']', '?', ';']) {
            break;
        } else {
            in_list |= part.contains("&[");
        }
    }
    labels
}

/// Lists the Rust sources of all crates, without their integration tests.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let crates = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut folders: Vec<PathBuf> = crates.filter(|folder| folder.is_dir()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                sources.push(path);
            }
        }
    }
    sources
}
