//! Layered settings: defaults, file (`allocator.toml`), environment, flags. A later layer overrides an earlier one.
//!
//! Each setting is declared once, with [`settings!`](crate::settings), next to the code that uses it. Every value is
//! text until the key's parser converts it, so a value means the same in every layer. A wrong configuration is rejected
//! as a whole, with every fault at once: key, source and expected value. This module does not decide what the keys
//! mean.

mod args;
mod declare;
mod fault;
mod layers;
pub mod parse;
mod reader;
mod reference;
mod service;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use crate::settings;
pub use args::ConfigArgs;
pub use fault::{ConfigFault, ConfigFaults};
pub use reader::Reader;
pub use reference::reference;
pub use service::ServiceConfig;
pub use settings::Settings;

/// One setting: dotted name, default and parser.
pub struct Key<T: 'static> {
    /// The dotted name, `section.key`, for example `kafka.brokers`.
    pub name: &'static str,
    /// The text used when no layer gives a value. `None` makes the setting required.
    pub default: Option<&'static str>,
    /// The unit of the value, for the reference: `ms`, `bytes`, `host:port`, or empty.
    pub unit: &'static str,
    /// The description in the reference.
    pub doc: &'static str,
    /// Whether the value must never be printed.
    pub secret: bool,
    /// Parses the text. The error states what is expected and must not repeat the text.
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

    /// Marks the value as secret: it is never printed.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// Describes the setting without its type, so that settings of all types fit in one list.
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

/// A row of the configuration reference: a [`Key`] without its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDoc {
    /// The dotted name.
    pub name: &'static str,
    /// The default, `None` if the setting is required.
    pub default: Option<&'static str>,
    /// The unit of the value, or empty.
    pub unit: &'static str,
    /// The description.
    pub doc: &'static str,
    /// Whether the value must never be printed.
    pub secret: bool,
}

/// Returns the settings that result when no layer gives a value.
///
/// # Panics
/// If a key is required or its default does not parse: a bug in the declaration.
#[expect(clippy::expect_used, reason = "a bug in a declaration, which a test of the crate finds")]
pub fn defaults<T>(read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> T {
    read(&mut Settings::default().reader()).expect("every key has a default that parses")
}
