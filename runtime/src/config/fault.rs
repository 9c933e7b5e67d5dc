//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody gave it: the key's own default, or nothing at all.
    Default,
    /// By the program, not by its user.
    Program,
    /// In the settings file, at a line counted from 1.
    File { path: PathBuf, line: usize },
    /// In an environment variable.
    Variable(String),
    /// In a `--set` flag.
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

/// One fault: which setting, where it came from, what was found (never for a secret), what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) found: Option<String>,
    pub(super) expected: String,
}

impl ConfigFault {
    /// The dotted name of the setting; for a fault of a whole file or flag, that file or flag.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What would be right.
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

/// Every fault of a configuration, in the order in which they were found; one line each when printed.
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
