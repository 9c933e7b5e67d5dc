//! Configuration faults: what is wrong, and in which source.

use std::fmt;
use std::path::PathBuf;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// No source: the key's default, or no value at all.
    Default,
    /// Set by the program, not by its user.
    Program,
    /// The settings file, at a line counted from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Variable(String),
    /// A `--set` flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("not set"),
            Self::Program => out.write_str("set by the program"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => write!(out, "${name}"),
            Self::Flag => out.write_str("--set"),
        }
    }
}

/// One fault: the setting, its source, the value found (never of a secret) and the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) found: Option<String>,
    pub(super) expected: String,
}

impl ConfigFault {
    /// The dotted name of the setting. The file or flag if the whole source is wrong.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is expected instead.
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): ", self.key, self.origin)?;
        if let Some(found) = &self.found {
            write!(out, "found {found:?}; ")?;
        }
        out.write_str(&self.expected)
    }
}

/// All faults of a configuration, in the order found. Prints one line per fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub(super) Vec<ConfigFault>);

impl ConfigFaults {
    /// The faults; never empty.
    pub fn faults(&self) -> &[ConfigFault] {
        &self.0
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the configuration is wrong:")?;
        for fault in &self.0 {
            write!(out, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
