//! What is said about an export: it stands beside the file, for whoever gets it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::ExportFormat;
use crate::{Budget, Category, Generation, Position};

/// What the exported people are, and as of when. A function of the log up to these positions: whichever generation is
/// exported, and whenever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The budget's id.
    pub budget: String,
    /// What it is called.
    pub name: String,
    /// For each partition the position that the export reflects: exactly the records below it.
    pub positions: Vec<Position>,
    /// Everyone who counts: a row each.
    pub people: u64,
    /// In the budget's order.
    pub categories: Vec<CategoryFacts>,
}

/// One category of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryFacts {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What the rows add up to. Of one person 10,000 are the whole.
    pub basis_points: u64,
}

impl Facts {
    /// Of nobody yet.
    pub fn of(budget: &Budget) -> Self {
        let category = |category: &Category| CategoryFacts {
            id: category.id.to_string(),
            name: category.name.clone(),
            basis_points: 0,
        };
        Self {
            budget: budget.id.to_string(),
            name: budget.name.clone(),
            positions: Vec::new(),
            people: 0,
            categories: budget.categories.iter().map(category).collect(),
        }
    }

    /// Adds a partition's people.
    pub fn add(&mut self, position: Position, people: u64, basis_points: &[u64]) {
        self.positions.push(position);
        self.people += people;
        for (category, sum) in self.categories.iter_mut().zip(basis_points) {
            category.basis_points += sum;
        }
    }
}

/// An export: what stands in the file beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the people are.
    #[serde(flatten)]
    pub facts: Facts,
    /// How the file is written.
    pub format: ExportFormat,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    /// The file's length.
    pub bytes: u64,
    /// The derivation that was read.
    pub generation: Generation,
    /// The version under which an api shows these totals while it answers from this generation.
    pub version: String,
    /// When it was made.
    pub exported_at: Timestamp,
}
