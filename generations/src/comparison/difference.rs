//! Differences between totals derived from the log and totals that are stored or served.

use std::fmt;

use schemas::{BudgetId, BudgetTotals, CategoryTotals, PartitionId};

/// A copy of the totals that is compared with the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Totals and checkpoint in the store.
    Totals,
    /// Person rows in the store.
    People,
    /// History points in the store.
    History,
    /// Totals in the cache.
    Cache,
    /// Responses of one API, by its URL.
    Api(String),
}

impl Subject {
    /// Returns the metric label, which omits the URL.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Totals => "totals",
            Self::People => "people",
            Self::History => "history",
            Self::Cache => "cache",
            Self::Api(_) => "api",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Totals => f.write_str("the store's totals"),
            Self::People => f.write_str("people's rows"),
            Self::History => f.write_str("the history"),
            Self::Cache => f.write_str("the cache"),
            Self::Api(url) => write!(f, "the api at {url}"),
        }
    }
}

/// The part of the totals that a comparison covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The copy that is compared with the log.
    pub subject: Subject,
    /// The partition. `None`: all partitions merged.
    pub partition: Option<PartitionId>,
    /// The budget. `None`: the whole partition.
    pub budget: Option<BudgetId>,
    /// Index of the category in its budget, from 0. `None`: the whole budget.
    pub category: Option<usize>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if let Some(partition) = self.partition {
            write!(f, ", partition {partition}")?;
        }
        if let Some(budget) = &self.budget {
            write!(f, ", budget `{budget}`")?;
        }
        if let Some(category) = self.category {
            write!(f, ", category {category}")?;
        }
        Ok(())
    }
}

/// One difference between the log and a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where the difference is.
    pub scope: Scope,
    /// Description of the difference.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.scope, self.what)
    }
}

/// Collects the differences of one scope.
#[derive(Debug)]
pub struct Comparison<'d> {
    scope: Scope,
    differences: &'d mut Vec<Difference>,
}

impl<'d> Comparison<'d> {
    /// Creates a comparison that appends to `differences`.
    pub fn new(scope: Scope, differences: &'d mut Vec<Difference>) -> Self {
        Self { scope, differences }
    }

    /// Appends a difference, described in words.
    pub fn add(&mut self, what: String) {
        self.differences.push(Difference { scope: self.scope.clone(), what });
    }

    /// Appends a difference if `found` is not the number derived from the log.
    pub fn compare_number(&mut self, what: &str, log: u64, found: u64) {
        if log != found {
            self.add(format!("{what}: {found}, and {log} by the log"));
        }
    }

    /// Compares every number of a budget: people, annulled people, and each category.
    pub fn compare_totals(&mut self, log: &BudgetTotals, found: &BudgetTotals) {
        self.compare_number("people", log.people, found.people);
        self.compare_number("annulled people", log.annulled, found.annulled);
        let (expected, categories) = (log.categories.len(), found.categories.len());
        if expected != categories {
            self.add(format!("{categories} categories, and {expected} by the log"));
            return;
        }
        for (index, (log, found)) in log.categories.iter().zip(&found.categories).enumerate() {
            self.scope.category = Some(index);
            self.compare_category(log, found);
        }
        self.scope.category = None;
    }

    /// Compares which rows people have with those that stored totals were committed with, as far as these say so.
    ///
    /// Not with the log: earlier releases kept rows for the withdrawals of nobody.
    pub fn compare_people_digest(&mut self, stored: &BudgetTotals, rows: &BudgetTotals) {
        if let (Some(stored), Some(rows)) = (stored.people_digest, rows.people_digest)
            && stored != rows
        {
            self.add("not the rows of the committed totals: some are lost, or old".to_owned());
        }
        if let (Some(stored), Some(rows)) = (stored.content_digest, rows.content_digest)
            && stored != rows
        {
            self.add(
                "not the submission ids or annulments of the committed totals: rows are old"
                    .to_owned(),
            );
        }
    }

    /// Compares every field of a budget's stored totals, but for the digests of people.
    pub fn compare_stored_totals(&mut self, log: &BudgetTotals, found: &BudgetTotals) {
        self.compare_totals(log, found);
        self.compare_number("position", log.position.0, found.position.0);
        if log.closing != found.closing {
            self.add(format!("closing: {:?}, and {:?} by the log", found.closing, log.closing));
        }
        self.compare_pending(log, found);
        self.compare_last_change(log, found);
    }

    /// Compares what readers are shown while changes are pending, and whose.
    fn compare_pending(&mut self, log: &BudgetTotals, found: &BudgetTotals) {
        let steps = [log, found].map(|totals| u64::from(totals.publish_step.get()));
        self.compare_number("publish step", steps[0], steps[1]);
        if log.pending != found.pending {
            // In numbers alone: fingerprints of people do not belong into reports and logs.
            let describe = |totals: &BudgetTotals| match &totals.pending {
                None => "nothing is pending".to_owned(),
                Some(pending) => format!(
                    "{} people are shown and {} pending",
                    pending.people(),
                    pending.changed_fingerprints().len()
                ),
            };
            self.add(format!("{}, and {} by the log", describe(found), describe(log)));
        }
    }

    /// Compares the times of the last change.
    pub fn compare_last_change(&mut self, log: &BudgetTotals, found: &BudgetTotals) {
        let what = "last change in ms since 1970";
        self.compare_number(what, log.updated_at_ms, found.updated_at_ms);
    }

    fn compare_category(&mut self, log: &CategoryTotals, found: &CategoryTotals) {
        self.compare_number("basis points", log.basis_points, found.basis_points);
        let bins = log.people_by_percent.iter().zip(&*found.people_by_percent);
        // A person counted at the wrong percentage shows up as two differing bins.
        for (percent, (log, found)) in bins.enumerate() {
            self.compare_number(&format!("people at {percent} %"), *log, *found);
        }
    }
}
