//! All layers of settings, not parsed yet.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::args::ConfigArgs;
use super::fault::{ConfigFault, ConfigFaults, Origin};
use super::layers::{self, Given, Layer};

/// The file read when `--config` is absent, if it exists.
const DEFAULT_FILE: &str = "allocator.toml";

/// The texts of all given settings. The [`Reader`](super::Reader) parses them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Ordered from weakest to strongest.
    layers: Vec<Layer>,
}

impl Settings {
    /// Reads the file, the environment and the flags.
    ///
    /// # Errors
    /// All sources that cannot be read or are malformed. [`Reader::finish`](super::Reader::finish) checks the values.
    pub fn load(args: &ConfigArgs) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let file = read_file(args.config.as_deref(), &mut faults);
        let settings = Self::from_sources(file, std::env::vars_os(), &args.set, &mut faults);
        if faults.is_empty() { Ok(settings) } else { Err(ConfigFaults(faults)) }
    }

    /// Builds settings from pairs only, for tests and for programs that embed another.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { layers: vec![program_layer(pairs)] }
    }

    /// Overrides the keys' own defaults; every value given by the user is stronger.
    #[must_use]
    pub fn with_defaults(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.layers.insert(0, program_layer(pairs));
        self
    }

    pub(super) fn from_sources(
        file: Option<(PathBuf, String)>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[String],
        faults: &mut Vec<ConfigFault>,
    ) -> Self {
        let mut layers = Vec::new();
        if let Some((path, text)) = file {
            layers.push(layers::file(&path, &text, faults));
        }
        layers.push(layers::environment(variables, faults));
        layers.push(layers::flags(flags, faults));
        Self { layers }
    }

    /// Returns a key's value in the strongest layer that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.layers.iter().rev().find_map(|layer| layer.get(name))
    }

    /// Iterates over all given values, including those that a stronger layer overrides.
    pub(super) fn given(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.layers.iter().flatten().map(|(name, given)| (name.as_str(), given))
    }
}

fn program_layer(pairs: impl IntoIterator<Item = (String, String)>) -> Layer {
    pairs
        .into_iter()
        .map(|(name, text)| {
            let given = Given { text, origin: Origin::Program };
            (name, given)
        })
        .collect()
}

/// Reads the file. A file named by `--config` must exist; the default file may be absent.
fn read_file(named: Option<&Path>, faults: &mut Vec<ConfigFault>) -> Option<(PathBuf, String)> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Some((path.to_owned(), text)),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            faults.push(ConfigFault {
                key: "--config".into(),
                origin: Origin::Flag,
                found: Some(path.display().to_string()),
                expected: format!("expected a readable TOML file: {error}"),
            });
            None
        }
    }
}
