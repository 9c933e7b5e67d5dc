//! Where what is stored or shown is not what the log says.

use std::fmt;

use schemas::{BudgetId, BudgetTotals, CategoryTotals, PartitionId};

/// What is compared with the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The store's totals and checkpoint.
    Totals,
    /// The store's rows of people.
    People,
    /// The readers' copy.
    Cache,
    /// The answers of one api, by its URL.
    Api(String),
}

impl Place {
    /// A word for metrics: without the URL.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Totals => "totals",
            Self::People => "people",
            Self::Cache => "cache",
            Self::Api(_) => "api",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Totals => f.write_str("the store's totals"),
            Self::People => f.write_str("people's rows"),
            Self::Cache => f.write_str("the cache"),
            Self::Api(url) => write!(f, "the api at {url}"),
        }
    }
}

/// What a comparison is about, as far as it is narrowed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What is compared.
    pub place: Place,
    /// `None`: all partitions together.
    pub partition: Option<PartitionId>,
    /// `None`: the partition as a whole.
    pub budget: Option<BudgetId>,
    /// The category's place in its budget, from 0. `None`: the budget as a whole.
    pub category: Option<usize>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
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

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub scope: Scope,
    /// What.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.scope, self.what)
    }
}

/// Notes what differs in one scope.
#[derive(Debug)]
pub(crate) struct Comparison<'d> {
    scope: Scope,
    differences: &'d mut Vec<Difference>,
}

impl<'d> Comparison<'d> {
    pub fn of(scope: Scope, differences: &'d mut Vec<Difference>) -> Self {
        Self { scope, differences }
    }

    pub fn note(&mut self, what: String) {
        self.differences.push(Difference { scope: self.scope.clone(), what });
    }

    /// Notes a number that is another.
    pub fn number(&mut self, what: &str, log: u64, found: u64) {
        if log != found {
            self.note(format!("{what}: {found}, and {log} by the log"));
        }
    }

    /// Notes every number of a budget that is another: of people, and of each category.
    pub fn totals(&mut self, log: &BudgetTotals, found: &BudgetTotals) {
        self.number("people", log.people, found.people);
        let (expected, categories) = (log.categories.len(), found.categories.len());
        if expected != categories {
            self.note(format!("{categories} categories, and {expected} by the log"));
            return;
        }
        for (index, (log, found)) in log.categories.iter().zip(&found.categories).enumerate() {
            self.scope.category = Some(index);
            self.category(log, found);
        }
        self.scope.category = None;
    }

    fn category(&mut self, log: &CategoryTotals, found: &CategoryTotals) {
        self.number("basis points", log.basis_points, found.basis_points);
        let bins = log.people_by_percent.iter().zip(&*found.people_by_percent);
        // A person who is counted wrongly is in two of them.
        for (percent, (log, found)) in bins.enumerate() {
            self.number(&format!("people at {percent} %"), *log, *found);
        }
    }
}
