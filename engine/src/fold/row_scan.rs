//! Takes the rows of people who have changed, a part at a time.

use schemas::PersonRow;

use super::partition_state::PartitionState;

/// A scan over the people who were in the state when it began.
///
/// People added later belong to the next scan, so a scan ends however fast they are added.
#[derive(Debug)]
pub struct RowScan {
    /// Number of people of each budget when the scan began.
    people: Vec<usize>,
    budget: usize,
    slot: usize,
}

impl PartitionState {
    /// Begins a scan of the people who are in the state now.
    pub fn begin_row_scan(&self) -> RowScan {
        let people = self.budgets.iter().map(|budget| budget.people.len()).collect();
        RowScan { people, budget: 0, slot: 0 }
    }

    /// Takes the scan's next rows of changed people, about `limit` of them. `None` at the scan's end.
    pub fn take_changed_rows(
        &mut self,
        scan: &mut RowScan,
        limit: usize,
    ) -> Option<Vec<PersonRow>> {
        while let Some(people) = scan.people.get(scan.budget)
            && let Some(budget) = self.budgets.get_mut(scan.budget)
        {
            let (rows, slot) = budget.people.take_changed(&budget.id, scan.slot..*people, limit);
            scan.slot = slot;
            if !rows.is_empty() {
                return Some(rows);
            }
            (scan.budget, scan.slot) = (scan.budget + 1, 0);
        }
        None
    }
}
