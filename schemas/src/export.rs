//! The manifest of an export: a JSON file next to the exported file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::ExportFormat;
use crate::{Budget, Category, Generation, Position};

/// Content of an export. Depends only on the log up to the positions, and not on generation or time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSummary {
    /// The budget's id.
    pub budget: String,
    /// The budget's name.
    pub name: String,
    /// For each partition, the exported position: exactly the records below it are included.
    pub positions: Vec<Position>,
    /// Number of people, that is of rows.
    pub people: u64,
    /// Number of people who are annulled: they have no row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub annulled: u64,
    /// Totals of each category, in the budget's order.
    pub categories: Vec<CategorySummary>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Total of one category of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategorySummary {
    /// The category's id.
    pub id: String,
    /// The category's name.
    pub name: String,
    /// Sum over all rows; 10,000 basis points are 100 % of one person.
    pub basis_points: u64,
}

impl ExportSummary {
    /// Creates the summary of an export without people.
    pub fn empty(budget: &Budget) -> Self {
        let category = |category: &Category| CategorySummary {
            id: category.id.to_string(),
            name: category.name.clone(),
            basis_points: 0,
        };
        Self {
            budget: budget.id.to_string(),
            name: budget.name.clone(),
            positions: Vec::new(),
            people: 0,
            annulled: 0,
            categories: budget.categories.iter().map(category).collect(),
        }
    }

    /// Adds a partition.
    pub fn add(&mut self, position: Position, people: u64, basis_points: &[u64]) {
        self.positions.push(position);
        self.people += people;
        for (category, sum) in self.categories.iter_mut().zip(basis_points) {
            category.basis_points += sum;
        }
    }
}

/// Manifest of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Content of the export.
    #[serde(flatten)]
    pub summary: ExportSummary,
    /// File format.
    pub format: ExportFormat,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// The exported generation.
    pub generation: Generation,
    /// Version of the same totals in the api while this generation is active.
    pub version: String,
    /// Time of the export.
    pub exported_at: Timestamp,
}
