//! Parses settings key by key and gathers every fault on the way.

use std::collections::BTreeSet;

use super::fault::{ConfigFault, ConfigFaults, Origin};
use super::settings::Settings;
use super::{Key, KeyDoc};

/// Reads keys from [`Settings`], noting faults instead of stopping at the first.
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    faults: Vec<ConfigFault>,
    foreign_sections: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, faults: Vec::new(), foreign_sections: Vec::new() }
    }

    /// The value of a key: the strongest layer's, else the default. `None` once a fault was noted, because the
    /// value is wrong or a required one is missing.
    pub fn read<T>(&mut self, key: &Key<T>) -> Option<T> {
        let given = self.settings.get(key.name);
        let Some(text) = given.map(|given| given.text.as_str()).or(key.default) else {
            self.faults.push(ConfigFault {
                key: key.name.to_owned(),
                origin: Origin::Default,
                found: None,
                expected: format!("required: {}", key.doc),
            });
            return None;
        };
        match (key.parse)(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                // A careless parser could repeat a secret in its message.
                let leaks = key.secret && !text.is_empty() && expected.contains(text);
                self.faults.push(ConfigFault {
                    key: key.name.to_owned(),
                    origin: given.map_or(Origin::Default, |given| given.origin.clone()),
                    found: (!key.secret).then(|| text.to_owned()),
                    expected: if leaks { key.doc.to_owned() } else { expected },
                });
                None
            }
        }
    }

    /// Notes a fault that only several keys together show. The message must say what would be right and must not
    /// repeat a secret.
    pub fn fault(&mut self, key_name: &str, message: String) {
        let origin =
            self.settings.get(key_name).map_or(Origin::Default, |given| given.origin.clone());
        self.faults.push(ConfigFault {
            key: key_name.to_owned(),
            origin,
            found: None,
            expected: message,
        });
    }

    /// Accepts every key of a section unread: it belongs to another process that shares the file.
    pub fn ignore_section(&mut self, section: &'static str) {
        self.foreign_sections.push(section);
    }

    /// Ends the reading. `known` are all keys of the process; any other key that was given is a fault as well.
    ///
    /// # Errors
    /// Every fault noted since [`Settings::reader`].
    pub fn finish(mut self, known: &[&[KeyDoc]]) -> Result<(), ConfigFaults> {
        let names: BTreeSet<&str> = known.iter().copied().flatten().map(|key| key.name).collect();
        for (name, given) in self.settings.given() {
            let section = name.split('.').next().unwrap_or_default();
            if names.contains(name) || self.foreign_sections.contains(&section) {
                continue;
            }
            // The value is not printed: a misspelt secret is still a secret.
            self.faults.push(ConfigFault {
                key: name.to_owned(),
                origin: given.origin.clone(),
                found: None,
                expected: match nearest(name, &names) {
                    Some(near) => format!("no such setting; did you mean {near}?"),
                    None => "no such setting".to_owned(),
                },
            });
        }
        if self.faults.is_empty() { Ok(()) } else { Err(ConfigFaults(self.faults)) }
    }
}

/// The known name most like a given one, if it is like it at all.
fn nearest<'n>(name: &str, known: &BTreeSet<&'n str>) -> Option<&'n str> {
    const LIKE: f64 = 0.6;
    known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
