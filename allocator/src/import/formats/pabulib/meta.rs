//! The section META: what the file says about itself.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::import::file::{FileFault, ReadError, Records, shown};

use super::{Columns, ended_early, section_name};

/// The most keys that META may have.
const KEYS_MAX: usize = 1000;

/// The keys and values of META, with lower-case keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta(BTreeMap<String, String>);

impl Meta {
    pub(super) fn read<R: BufRead>(records: &mut Records<R>) -> Result<Self, ReadError> {
        match records.next_record()? {
            Some(record) if section_name(&record) == Some("META") => {}
            Some(record) => {
                let detail = "is not the line `META` with which a Pabulib file begins";
                return Err(FileFault::new(record.line, detail).into());
            }
            None => return Err(ended_early(records, "META")),
        }
        let columns = Columns::read(records, "META")?;
        let key_column = columns.required("key", "META")?;
        let value_column = columns.required("value", "META")?;

        let mut meta = Self::default();
        while let Some(record) = records.next_record()? {
            let line = record.line;
            match section_name(&record) {
                Some("PROJECTS") => {
                    meta.must_be_cumulative(line)?;
                    return Ok(meta);
                }
                Some(other) => {
                    let detail = format!("section {other} stands where PROJECTS should");
                    return Err(FileFault::new(line, detail).into());
                }
                None => {}
            }
            let key = record.field(key_column).unwrap_or_default().to_lowercase();
            let value = record.field(value_column).unwrap_or_default();
            meta.0.insert(key, value.to_owned());
            if meta.0.len() > KEYS_MAX {
                let detail = format!("META has more than {KEYS_MAX} keys");
                return Err(FileFault::new(line, detail).into());
            }
        }
        Err(ended_early(records, "PROJECTS"))
    }

    /// Only votes that spread points say how a person splits a budget.
    fn must_be_cumulative(&self, line: u64) -> Result<(), FileFault> {
        let found = match self.get("vote_type") {
            Some("cumulative") => return Ok(()),
            Some(other) => format!("is {}", shown(other)),
            None => "is missing".to_owned(),
        };
        Err(FileFault::new(
            line,
            format!(
                "the vote_type in META {found}; only `cumulative` votes, which spread points, say how a person \
                 splits a budget"
            ),
        ))
    }

    /// A value that is there and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Place and time, such as `Katowice 2022`; `None` when the file names neither.
    pub fn instance(&self) -> Option<String> {
        let parts: Vec<_> =
            ["unit", "subunit", "instance"].into_iter().filter_map(|key| self.get(key)).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// What the budget may be called.
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
