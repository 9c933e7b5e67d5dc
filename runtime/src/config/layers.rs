//! Reads each source of settings into a flat layer: dotted name to text and origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{ConfigFault, Origin};

/// A value as written in its source.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The values of one source, by dotted name.
pub(super) type Layer = BTreeMap<String, Given>;

/// Prefix of our environment variables: `ALLOCATOR__KAFKA__BROKERS` is `kafka.brokers`.
const VARIABLE_PREFIX: &str = "ALLOCATOR__";

/// Flattens a TOML text. The fault of a syntax error omits the line's text, which could hold a secret.
pub(super) fn file(path: &Path, text: &str, faults: &mut Vec<ConfigFault>) -> Layer {
    let mut layer = Layer::new();
    match DeTable::parse(text) {
        Ok(table) => Flattener { path, text, layer: &mut layer, faults }.table("", table.get_ref()),
        Err(error) => faults.push(ConfigFault {
            key: path.display().to_string(),
            origin: Origin::File {
                path: path.to_owned(),
                line: line_of(text, error.span().map_or(0, |span| span.start)),
            },
            found: None,
            expected: format!("not TOML: {}", error.message()),
        }),
    }
    layer
}

struct Flattener<'a> {
    path: &'a Path,
    text: &'a str,
    layer: &'a mut Layer,
    faults: &'a mut Vec<ConfigFault>,
}

impl Flattener<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            if let DeValue::Table(inner) = value.get_ref() {
                self.table(&name, inner);
                continue;
            }
            let origin = Origin::File {
                path: self.path.to_owned(),
                line: line_of(self.text, key.span().start),
            };
            match value_text(value) {
                Some(text) => {
                    self.layer.insert(name, Given { text, origin });
                }
                None => self.faults.push(ConfigFault {
                    key: name,
                    origin,
                    found: None,
                    expected: "expected one value or a flat list of values without commas".into(),
                }),
            }
        }
    }
}

/// Returns the text of a scalar, or of a list of scalars joined with commas.
///
/// `None` for nested values, and for a list with a comma in an item, since joining would change its items.
fn value_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| scalar(item.get_ref()).filter(|text| !text.contains(',')))
                .collect();
            items.map(|items| items.join(","))
        }
        value => scalar(value),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(
            i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()),
        ),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}

/// Collects our variables from an environment.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Vec<ConfigFault>,
) -> Layer {
    let mut layer = Layer::new();
    for (variable, value) in variables {
        let Some(variable) = variable.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX))
        else {
            continue;
        };
        let name = variable[VARIABLE_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Variable(variable.to_owned());
        match value.into_string() {
            Ok(text) => {
                layer.insert(name, Given { text, origin });
            }
            Err(_) => faults.push(ConfigFault {
                key: name,
                origin,
                found: None,
                expected: "expected UTF-8".into(),
            }),
        }
    }
    layer
}

/// Splits the `--set` flags; the last flag for a key wins.
pub(super) fn flags(flags: &[String], faults: &mut Vec<ConfigFault>) -> Layer {
    let mut layer = Layer::new();
    for flag in flags {
        match flag.split_once('=') {
            Some((name, text)) if !name.trim().is_empty() => {
                let given = Given { text: text.to_owned(), origin: Origin::Flag };
                layer.insert(name.trim().to_owned(), given);
            }
            // The flag's text is not repeated: it may contain a secret.
            _ => faults.push(ConfigFault {
                key: "--set".into(),
                origin: Origin::Flag,
                found: None,
                expected: "expected section.key=value".into(),
            }),
        }
    }
    layer
}
