//! What the code says, for the files of operations to be compared with: binaries, settings, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The binaries of the workspace.
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

/// The names of all settings, from the reference in the README, which another test keeps equal to the code.
pub fn settings() -> BTreeSet<String> {
    let readme = read("README.md");
    let (_, reference) = readme.split_once("<!-- configuration -->").unwrap();
    let (reference, _) = reference.split_once("<!-- /configuration -->").unwrap();
    reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The metrics that the sources register, each with the method that registers it.
pub fn metrics() -> BTreeMap<String, &'static str> {
    const REGISTRARS: [&str; 8] = [
        "counter(",
        "counter_vec(",
        "float_gauge(",
        "gauge(",
        "gauge_vec(",
        "histogram(",
        "histogram_vec(",
        "Opts::new(",
    ];
    let mut metrics = BTreeMap::new();
    for source in sources(&root()) {
        let text = fs::read_to_string(&source).unwrap();
        for registrar in REGISTRARS {
            for (at, _) in text.match_indices(registrar) {
                let arguments = text[at + registrar.len()..].trim_start();
                let Some((name, _)) =
                    arguments.strip_prefix('"').and_then(|rest| rest.split_once('"'))
                else {
                    continue;
                };
                let name = name.strip_prefix("allocator_").unwrap_or(name);
                metrics.insert(format!("allocator_{name}"), registrar);
            }
        }
    }
    metrics
}

/// The Rust sources of every crate, without their tests.
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
