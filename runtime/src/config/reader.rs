//! Parses settings key by key and collects all faults.

use std::collections::BTreeSet;

use super::Key;
use super::fault::{ConfigFault, ConfigFaults, Origin};
use super::settings::Settings;

/// Reads keys from [`Settings`] and collects faults instead of stopping at the first.
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    faults: Vec<ConfigFault>,
    read_keys: BTreeSet<&'static str>,
    service_sections: &'static [&'static str],
}

impl Settings {
    /// Starts parsing. Use one reader for all keys of the process, so that all faults come at once.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            settings: self,
            faults: Vec::new(),
            read_keys: BTreeSet::new(),
            service_sections: &[],
        }
    }
}

impl Reader<'_> {
    /// Reads a key from the strongest layer that has it, else its default.
    ///
    /// `None`, with a recorded fault, if the value does not parse or a required value is missing.
    pub fn read<T>(&mut self, key: &Key<T>) -> Option<T> {
        self.read_keys.insert(key.name);
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
                // A parser may repeat the secret in its message by mistake.
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

    /// Records a fault that shows only when several keys are read together.
    ///
    /// The message must state what is expected and must not repeat a secret.
    pub fn fault(&mut self, key_name: &str, message: String) {
        debug_assert!(self.read_keys.contains(key_name), "{key_name} is not a key that was read");
        let origin =
            self.settings.get(key_name).map_or(Origin::Default, |given| given.origin.clone());
        self.faults.push(ConfigFault {
            key: key_name.to_owned(),
            origin,
            found: None,
            expected: message,
        });
    }

    /// Lists sections of a shared file that belong to single services.
    ///
    /// Unknown keys in such a section are no fault if this process reads nothing from it.
    pub fn ignore_sections_of_other_services(&mut self, sections: &'static [&'static str]) {
        self.service_sections = sections;
    }

    fn belongs_to_another_service(&self, name: &str) -> bool {
        let section_of = |name: &'_ str| name.split('.').next().unwrap_or_default().to_owned();
        let section = section_of(name);
        self.service_sections.contains(&section.as_str())
            && !self.read_keys.iter().any(|key| section_of(key) == section)
    }

    /// Returns the typed settings, or all faults. A given key that was never read is a fault too.
    ///
    /// # Errors
    /// All faults recorded since [`Settings::reader`].
    pub fn finish<T>(mut self, typed: Option<T>) -> Result<T, ConfigFaults> {
        for (name, given) in self.settings.given() {
            if self.read_keys.contains(name) || self.belongs_to_another_service(name) {
                continue;
            }
            // The value is not printed: a misspelt secret is still a secret.
            self.faults.push(ConfigFault {
                key: name.to_owned(),
                origin: given.origin.clone(),
                found: None,
                expected: match nearest(name, &self.read_keys) {
                    Some(nearest) => format!("no such setting; did you mean {nearest}?"),
                    None => "no such setting".to_owned(),
                },
            });
        }
        match typed {
            Some(typed) if self.faults.is_empty() => Ok(typed),
            _ => Err(ConfigFaults(self.faults)),
        }
    }
}

/// Finds the known name closest to an unknown one, for a suggestion.
fn nearest<'n>(name: &str, names: &BTreeSet<&'n str>) -> Option<&'n str> {
    const MIN_SIMILARITY: f64 = 0.6;
    names
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
