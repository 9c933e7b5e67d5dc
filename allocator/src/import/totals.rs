//! Adds up the people whom a file leaves counted, and their shares.
//!
//! The newest entry of a person counts, as it does on the server. Only the shares of people with several entries are
//! kept in memory.

use std::collections::{HashMap, HashSet};

use schemas::{Category, CategoryId};

use super::ballot::{BallotAllocation, PersonDigest};

/// The effect of an entry that the server accepts.
#[derive(Clone)]
pub struct Effect {
    /// The person. `None` if no other entry of the file can have the same person.
    pub person: Option<PersonDigest>,
    /// How the person splits the budget.
    pub allocation: BallotAllocation,
}

/// People and totals of the entries applied so far.
#[derive(Debug, Default)]
pub struct ImportTotals {
    people_with_several_entries: HashSet<PersonDigest>,
    /// The newest shares of these people.
    newest: HashMap<PersonDigest, Vec<Share>>,
    people: u64,
    categories: Vec<CategoryId>,
    index: HashMap<CategoryId, usize>,
    totals: Vec<u64>,
}

/// Index of a category, and basis points.
type Share = (usize, u16);

impl ImportTotals {
    /// Starts at zero. `categories` are those of the file, in the order of its computed allocations.
    pub fn new(
        categories: &[Category],
        people_with_several_entries: HashSet<PersonDigest>,
    ) -> Self {
        let mut totals = Self { people_with_several_entries, ..Self::default() };
        for category in categories {
            totals.category_index(&category.id);
        }
        totals
    }

    /// Applies the next entry of its person in the order of the file.
    pub fn apply(&mut self, effect: Effect) {
        let shares = self.shares(&effect.allocation);
        for (category, share) in &shares {
            if let Some(total) = self.totals.get_mut(*category) {
                *total += u64::from(*share);
            }
        }
        let replaced = match effect.person {
            Some(person) if self.people_with_several_entries.contains(&person) => {
                self.newest.insert(person, shares)
            }
            _ => None,
        };
        let Some(replaced) = replaced else {
            self.people += 1;
            return;
        };
        for (category, share) in replaced {
            // Was added when it was inserted.
            if let Some(total) = self.totals.get_mut(category) {
                *total -= u64::from(share);
            }
        }
    }

    /// The number of people.
    pub fn people(&self) -> u64 {
        self.people
    }

    /// The categories with their totals in basis points.
    pub fn totals(&self) -> impl Iterator<Item = (&CategoryId, u64)> {
        self.categories.iter().zip(self.totals.iter().copied())
    }

    fn shares(&mut self, allocation: &BallotAllocation) -> Vec<Share> {
        let shares = match allocation {
            BallotAllocation::Computed(allocation) => {
                allocation.basis_points().iter().copied().enumerate().collect()
            }
            BallotAllocation::Verbatim { shares, .. } => shares
                .iter()
                .map(|(category, share)| (self.category_index(category), *share))
                .collect::<Vec<Share>>(),
        };
        shares.into_iter().filter(|(_, share)| *share > 0).collect()
    }

    fn category_index(&mut self, id: &CategoryId) -> usize {
        if let Some(index) = self.index.get(id) {
            return *index;
        }
        let index = self.categories.len();
        self.categories.push(id.clone());
        self.totals.push(0);
        self.index.insert(id.clone(), index);
        index
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::Allocation;

    fn category(id: &str) -> Category {
        let id = CategoryId::parse(id).unwrap();
        Category { name: id.to_string(), id, description: None, color: None }
    }

    proptest! {
        #[test]
        fn people_and_totals_are_those_of_each_persons_newest_entry(
            entries in prop::collection::vec((prop::option::of(0..5_u8), 0..=10_000_u32), 0..40),
        ) {
            let mut seen = HashSet::new();
            let several =
                entries.iter().filter_map(|(person, _)| *person).filter(|person| !seen.insert(*person)).map(|person| [person; 16]);
            let mut totals = ImportTotals::new(&[category("x"), category("y")], several.collect());
            let mut newest = HashMap::new();
            for (number, (person, x)) in entries.iter().enumerate() {
                newest.insert(person.map_or(1000 + number, usize::from), u64::from(*x));
                let allocation = Allocation::new(&[*x, 10_000 - x]).unwrap();
                totals.apply(Effect {
                    person: person.map(|person| [person; 16]),
                    allocation: BallotAllocation::Computed(allocation),
                });
            }
            let people = newest.len() as u64;
            let x: u64 = newest.values().sum();
            let sums: Vec<u64> = totals.totals().map(|(_, total)| total).collect();
            prop_assert_eq!((totals.people(), sums), (people, vec![x, people * 10_000 - x]));
        }
    }
}
