//! Layered settings: defaults, then the file (`allocator.toml`), then the environment, then flags; the last one
//! that says something wins.
//!
//! A setting is declared once, as a [`Key`], beside the code that uses it. Every value is text until its key parses
//! it, so a value means the same wherever it comes from. A wrong configuration is refused whole: every fault at once,
//! each with its key, its place and what would be right. What the keys mean is not decided here.

mod args;
mod fault;
mod layers;
pub mod parse;
mod reader;
mod reference;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use args::ConfigArgs;
pub use fault::{ConfigFault, ConfigFaults};
pub use reader::Reader;
pub use reference::reference;
pub use settings::Settings;

/// One setting: its dotted name, its default and how its text becomes a `T`.
pub struct Key<T: 'static> {
    /// The dotted name, `section.key`, for example `kafka.brokers`.
    pub name: &'static str,
    /// The text used when no layer gives a value; `None` makes the setting required.
    pub default: Option<&'static str>,
    /// The unit of the value, for the reference: `ms`, `bytes`, `host:port`, or empty.
    pub unit: &'static str,
    /// One sentence for the reference.
    pub doc: &'static str,
    /// A secret's value is never printed.
    pub secret: bool,
    /// Turns the text into the value; the error says what would be right, without repeating the text.
    pub parse: fn(&str) -> Result<T, String>,
}

impl<T> Key<T> {
    /// Declares a setting.
    pub const fn new(
        name: &'static str,
        default: Option<&'static str>,
        unit: &'static str,
        doc: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Self {
        Self { name, default, unit, doc, secret: false, parse }
    }

    /// The same setting, whose value must never be printed.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The setting without its type, so that settings of all types fit in one list.
    pub const fn describe(&self) -> KeyDoc {
        KeyDoc {
            name: self.name,
            default: self.default,
            unit: self.unit,
            doc: self.doc,
            secret: self.secret,
        }
    }
}

/// A [`Key`] without its type, as it stands in the reference. The fields are those of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDoc {
    /// The dotted name.
    pub name: &'static str,
    /// The default, `None` if the setting is required.
    pub default: Option<&'static str>,
    /// The unit of the value, or empty.
    pub unit: &'static str,
    /// One sentence for the reference.
    pub doc: &'static str,
    /// Whether the value must never be printed.
    pub secret: bool,
}

impl<T> From<&Key<T>> for KeyDoc {
    fn from(key: &Key<T>) -> Self {
        key.describe()
    }
}
