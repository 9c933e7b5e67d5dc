//! Parses settings key by key and gathers every fault on the way.

use std::collections::BTreeSet;

use super::Key;
use super::fault::{ConfigFault, ConfigFaults, Origin};
use super::settings::Settings;

/// Reads keys from [`Settings`], noting faults instead of stopping at the first.
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    faults: Vec<ConfigFault>,
    known: BTreeSet<&'static str>,
    owned_sections: &'static [&'static str],
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, faults: Vec::new(), known: BTreeSet::new(), owned_sections: &[] }
    }

    /// The value of a key: the strongest layer's, else the default. `None` once a fault was noted, because the
    /// value is wrong or a required one is missing.
    pub fn read<T>(&mut self, key: &Key<T>) -> Option<T> {
        self.known.insert(key.name);
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

    /// Says which sections of a shared file not every process reads. Those of which this process reads nothing are
    /// others', and are left alone.
    pub fn shares_its_file(&mut self, sections: &'static [&'static str]) {
        self.owned_sections = sections;
    }

    fn is_of_another(&self, name: &str) -> bool {
        let section = |name: &'_ str| name.split('.').next().unwrap_or_default().to_owned();
        let of = section(name);
        self.owned_sections.contains(&of.as_str())
            && !self.known.iter().any(|known| section(known) == of)
    }

    /// Ends the reading with what was made of it. A key that was given and never read is a fault as well.
    ///
    /// # Errors
    /// Every fault noted since [`Settings::reader`].
    pub fn finish<T>(mut self, whole: Option<T>) -> Result<T, ConfigFaults> {
        for (name, given) in self.settings.given() {
            if self.known.contains(name) || self.is_of_another(name) {
                continue;
            }
            // The value is not printed: a misspelt secret is still a secret.
            self.faults.push(ConfigFault {
                key: name.to_owned(),
                origin: given.origin.clone(),
                found: None,
                expected: match nearest(name, &self.known) {
                    Some(near) => format!("no such setting; did you mean {near}?"),
                    None => "no such setting".to_owned(),
                },
            });
        }
        match whole {
            Some(whole) if self.faults.is_empty() => Ok(whole),
            _ => Err(ConfigFaults(self.faults)),
        }
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
