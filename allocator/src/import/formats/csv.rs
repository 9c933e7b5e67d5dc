//! CSV tables: `person`, optionally `submission_id`, then one column of percentages per category. A row is one line.

use std::io::BufRead;

use schemas::{
    Allocation, AllocationFault, Category, CategoryId, MAX_CATEGORIES, MIN_CATEGORIES, PersonId,
};
use uuid::Uuid;

use crate::import::ballot::{Ballot, BallotAllocation, IdSource};
use crate::import::file::{
    Entry, FileFault, FileIdentity, FileReadError, FileRecord, FileRecords, Quoting, RejectedEntry,
    quoted,
};

use super::percent::{format_percent, parse_basis_points};

/// An open table.
pub struct Csv<R> {
    records: FileRecords<R>,
    columns: Columns,
}

/// The meaning of the columns.
struct Columns {
    submission_id: Option<usize>,
    /// Index of the first category column. All later columns are categories too.
    first_category: usize,
    categories: Vec<Category>,
}

impl<R: BufRead> Csv<R> {
    /// Opens a table and parses its header.
    ///
    /// # Errors
    /// When the header is not one of a table of submissions.
    pub fn open(reader: R) -> Result<Self, FileReadError> {
        let mut records = FileRecords::new(reader, b',', Quoting::Strict);
        let columns = match records.next_record()? {
            Some(header) => Columns::parse(header)?,
            None => return Err(FileFault::new(records.line(), "the file is empty").into()),
        };
        Ok(Self { records, columns })
    }

    /// Reads the next row. `None` at the end.
    ///
    /// # Errors
    /// When the rest of the file cannot be read.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, FileReadError> {
        let Some(row) = self.records.next_row()? else { return Ok(None) };
        Ok(Some(row.and_then(|record| {
            let line = record.at.number;
            self.columns.parse_ballot(record).map_err(|detail| RejectedEntry { line, detail })
        })))
    }

    /// The categories, in the order of their columns.
    pub fn categories(&self) -> &[Category] {
        &self.columns.categories
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        self.records.identity()
    }
}

impl Columns {
    fn parse(header: FileRecord<'_>) -> Result<Self, FileFault> {
        let fault = |detail: String| FileFault::new(header.at.number, detail);
        if header.field(0) != Some("person") {
            // Without a header the field is a person.
            return Err(fault(
                "the first line must be a header, with `person` as its first column".into(),
            ));
        }
        let submission_id = (header.field(1) == Some("submission_id")).then_some(1);
        let first_category = 1 + usize::from(submission_id.is_some());
        let mut categories: Vec<Category> = Vec::new();
        for name in header.fields().skip(first_category) {
            let id = CategoryId::parse(name).map_err(|slug_fault| {
                fault(format!("column {} is not a category id: it {slug_fault}", quoted(name)))
            })?;
            if categories.iter().any(|category| category.id == id) {
                return Err(fault(format!("column `{id}` appears twice")));
            }
            categories.push(Category { id, name: name.to_owned(), description: None, color: None });
        }
        if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&categories.len()) {
            return Err(fault(format!(
                "has columns for {} categories, but a budget has {MIN_CATEGORIES} to {MAX_CATEGORIES}",
                categories.len()
            )));
        }
        Ok(Self { submission_id, first_category, categories })
    }

    fn parse_ballot(&self, record: FileRecord<'_>) -> Result<Ballot, String> {
        let (found, expected) = (record.len(), self.first_category + self.categories.len());
        if found != expected {
            return Err(format!("has {found} fields, but the header has {expected}"));
        }
        let person = PersonId::parse(record.field(0).unwrap_or_default())
            .map_err(|fault| format!("the person {fault}"))?;
        let id = self.submission_id.and_then(|column| record.field(column)).unwrap_or_default();
        let id_source = match id {
            "" => IdSource::Line(record.at),
            id => IdSource::Given(
                Uuid::try_parse(id).map_err(|_| "submission_id is not a UUID".to_owned())?,
            ),
        };
        let mut shares = Vec::with_capacity(self.categories.len());
        for (text, category) in record.fields().skip(self.first_category).zip(&self.categories) {
            let share = parse_basis_points(text)
                .map_err(|fault| format!("`{}` {fault}: {}", category.id, quoted(text)))?;
            shares.push(share);
        }
        let allocation = Allocation::new(&shares).map_err(|fault| match fault {
            AllocationFault::Sum { sum } => {
                format!("the percentages add up to {} instead of 100", format_percent(sum))
            }
            other => other.to_string(),
        })?;
        Ok(Ballot {
            line: record.at.number,
            person: Some(person),
            id_source,
            allocation: BallotAllocation::Computed(allocation),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A row's line, and its shares or why it is rejected.
    type Row = (u64, Result<Vec<u16>, String>);

    fn rows(text: &str) -> Result<Vec<Row>, String> {
        let mut csv = Csv::open(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        while let Some(entry) = csv.next_ballot().map_err(|error| error.to_string())? {
            rows.push(match entry {
                Ok(ballot) => {
                    let BallotAllocation::Computed(allocation) = ballot.allocation else {
                        panic!("not computed")
                    };
                    (ballot.line, Ok(allocation.basis_points().to_vec()))
                }
                Err(entry) => (entry.line, Err(entry.detail)),
            });
        }
        Ok(rows)
    }

    #[test]
    fn each_row_is_a_submission_with_its_percentages() {
        let text = "person,health,education\np-1,33.34,66.66\n\"p,2\",100,\n";
        assert_eq!(rows(text).unwrap(), [(2, Ok(vec![3334, 6666])), (3, Ok(vec![10_000, 0]))]);
    }

    #[test]
    fn the_submission_id_column_is_used_if_it_is_not_empty() {
        let text =
            "person,submission_id,a,b\np,0198d2a5-0000-7000-8000-000000000001,50,50\np,,50,50\n";
        let mut csv = Csv::open(text.as_bytes()).unwrap();
        let mut id_source = || csv.next_ballot().unwrap().unwrap().unwrap().id_source;
        assert!(matches!(id_source(), IdSource::Given(_)));
        assert!(matches!(id_source(), IdSource::Line(at) if at.number == 3));
    }

    #[test]
    fn an_invalid_row_is_rejected_with_its_reason() {
        let reason = |row: &str| {
            let rows = rows(&format!("person,submission_id,a,b\n{row}\n")).unwrap();
            rows[0].1.clone().unwrap_err()
        };
        assert_eq!(reason("p,,50,49.99"), "the percentages add up to 99.99 instead of 100");
        assert_eq!(reason("p,,50.001,49.999"), "`a` has more than two decimals: `50.001`");
        assert_eq!(reason("p,,-1,101"), "`a` is not a percentage such as 33.34: `-1`");
        assert_eq!(reason(",,50,50"), "the person must not be empty");
        assert_eq!(reason("p,x,50,50"), "submission_id is not a UUID");
        assert_eq!(reason("p,,50"), "has 3 fields, but the header has 4");
    }

    #[test]
    fn a_stray_quote_costs_one_row_with_the_right_reason() {
        let stray =
            "has a stray quote: write a field that holds a quote in quotes, and the quote twice";
        let open = "has a quote that is not closed on its line";
        for (row, reason) in [
            ("p-2,\"40,60", open),
            ("\"p-2,40,60", open),
            ("p-2\",40,60", stray),
            ("\"p\"-2,40,60", stray),
            ("p-2,\"4\"0,60", stray),
        ] {
            let text = format!("person,a,b\np-1,50,50\n{row}\n\"p-3\",\"10\",\"90\"\np-4,0,100\n");
            let expected = [
                (2, Ok(vec![5000, 5000])),
                (3, Err(reason.to_owned())),
                (4, Ok(vec![1000, 9000])),
                (5, Ok(vec![0, 10_000])),
            ];
            assert_eq!(rows(&text).unwrap(), expected, "{row}");
        }
    }

    #[test]
    fn lines_end_in_lf_crlf_or_cr_alike_and_may_be_mixed() {
        let expected =
            [(2, Ok(vec![5000, 5000])), (3, Ok(vec![4000, 6000])), (4, Ok(vec![1000, 9000]))];
        for ending in ["\n", "\r\n", "\r"] {
            let lines = ["person,a,b", "p-1,50,50", "p-2,40,60", "p-3,10,90"];
            assert_eq!(rows(&lines.join(ending)).unwrap(), expected);
        }
        assert_eq!(rows("person,a,b\np-1,50,50\np-2,40,60\rp-3,10,90\n").unwrap(), expected);
    }

    #[test]
    fn an_invalid_header_is_rejected() {
        let fault = |header: &str| rows(header).unwrap_err();
        let no_header =
            "line 1: the first line must be a header, with `person` as its first column";
        assert_eq!(fault("who@example.org,a,b"), no_header);
        assert_eq!(fault("person,a,a"), "line 1: column `a` appears twice");
        assert!(fault("person,A b,c").starts_with("line 1: column `A b` is not a category id"));
        assert!(fault("person,a").contains("has columns for 1 categories"));
        assert!(fault("").ends_with("the file is empty"));
        assert!(fault("person,\"a,b\np,50,50\n").contains("has a quote that is not closed"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "(person,a,b\n)?[pab0-9.,\"\n\r-]{0,80}") {
            let _ = rows(&text);
        }
    }
}
