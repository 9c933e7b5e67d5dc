//! The section META: the file's metadata.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::import::file::{FileFault, FileReadError, FileRecords, quoted};

use super::{Columns, missing_section, section_name};

/// Maximum number of keys in META.
const MAX_KEYS: usize = 1000;

/// The keys and values of META, with lower-case keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta(BTreeMap<String, MetaValue>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct MetaValue {
    line: u64,
    text: String,
}

impl Meta {
    pub(super) fn parse<R: BufRead>(records: &mut FileRecords<R>) -> Result<Self, FileReadError> {
        match records.next_record()? {
            Some(record) if section_name(&record) == Some("META") => {}
            Some(record) => {
                let detail = "expected the line `META`, with which a Pabulib file starts";
                return Err(FileFault::new(record.at.number, detail).into());
            }
            None => return Err(missing_section(records, "META")),
        }
        let columns = Columns::parse(records, "META")?;
        let key_column = columns.required("key", "META")?;
        let value_column = columns.required("value", "META")?;

        let mut meta = Self::default();
        while let Some(record) = records.next_record()? {
            let line = record.at.number;
            match section_name(&record) {
                Some("PROJECTS") => {
                    meta.require_cumulative_votes(line)?;
                    return Ok(meta);
                }
                Some(other) => {
                    let detail = format!("expected section PROJECTS, found {other}");
                    return Err(FileFault::new(line, detail).into());
                }
                None => {}
            }
            let key = record.field(key_column).unwrap_or_default().to_lowercase();
            let value = record.field(value_column).unwrap_or_default();
            meta.0.insert(key, MetaValue { line, text: value.to_owned() });
            if meta.0.len() > MAX_KEYS {
                let detail = format!("META has more than {MAX_KEYS} keys");
                return Err(FileFault::new(line, detail).into());
            }
        }
        Err(missing_section(records, "PROJECTS"))
    }

    /// Rejects other vote types: only cumulative votes distribute points over projects.
    fn require_cumulative_votes(&self, line: u64) -> Result<(), FileFault> {
        let found = match self.get("vote_type") {
            Some("cumulative") => return Ok(()),
            Some(other) => format!("is {}", quoted(other)),
            None => "is missing".to_owned(),
        };
        Err(FileFault::new(
            line,
            format!(
                "the vote_type in META {found}; only `cumulative` votes, which distribute points, can be imported"
            ),
        ))
    }

    /// The value of a key, if it is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.text.as_str()).filter(|value| !value.is_empty())
    }

    /// Compares the count that a key declares with the count in the file. `None` if they agree or the key is missing.
    pub fn wrong_count(&self, key: &str, counted: u64) -> Option<FileFault> {
        let declared = self.get(key)?;
        if declared.parse() == Ok(counted) {
            return None;
        }
        let line = self.0.get(key).map_or(0, |value| value.line);
        let declared = quoted(declared);
        Some(FileFault::new(
            line,
            format!("META declares {key} {declared}, but the file has {counted}"),
        ))
    }

    /// Place and time, such as `Katowice 2022`. `None` if META has neither.
    pub fn instance(&self) -> Option<String> {
        let parts: Vec<_> =
            ["unit", "subunit", "instance"].into_iter().filter_map(|key| self.get(key)).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// A display name for the budget.
    pub fn title(&self) -> Option<String> {
        match (self.get("description"), self.get("instance")) {
            (Some(description), Some(instance)) if !description.contains(instance) => {
                Some(format!("{description} {instance}"))
            }
            (Some(description), _) => Some(description.to_owned()),
            (None, _) => self.instance(),
        }
    }
}
