//! The columns of a budget's totals in one partition. The `distribution` column also holds the state of closing and
//! what is pending. A part that a budget does not need is absent from its row, whose bytes are those of earlier
//! releases.

use prost::Message;

use super::{BudgetTotals, CategoryTotals, DISTRIBUTION_BINS, PendingStep};
use crate::proto::{self, Distribution};
use crate::{Closing, Offset, PeopleDigest, Position, PublishStep};

impl BudgetTotals {
    /// Encodes the `distribution` column, which also holds the state of closing and what is pending.
    pub fn encode_distribution(&self) -> Vec<u8> {
        let column = Distribution {
            people_by_percent: people_by_percent(&self.categories),
            closing_changes: self.closing.changes().iter().map(|offset| offset.0).collect(),
            closing_revision: self.closing.revision(),
            publish_step: self.publish_step.to_proto(),
            pending: self.pending.as_ref().map(|pending| pending.to_proto()),
            annulled: self.annulled,
            people_digest: self.people_digest.map(PeopleDigest::to_bits),
            content_digest: self.content_digest.map(PeopleDigest::to_bits),
        };
        column.encode_to_vec()
    }

    /// Decodes the columns of a row; `None` if they are inconsistent, that is damaged.
    pub fn from_columns(
        position: Position,
        people: u64,
        updated_at_ms: u64,
        sums: &[i64],
        distribution: &[u8],
    ) -> Option<Self> {
        let column = Distribution::decode(distribution).ok()?;
        let changes = column.closing_changes.into_iter().map(Offset).collect();
        // Absent, or damaged.
        let pending = match column.pending {
            None => None,
            Some(pending) => Some(Box::new(PendingStep::from_proto(pending)?)),
        };
        let sums = sums.iter().map(|sum| u64::try_from(*sum).ok());
        let totals = Self {
            position,
            people,
            updated_at_ms,
            categories: categories(sums, &column.people_by_percent)?,
            closing: Closing::new(column.closing_revision, changes)?,
            publish_step: PublishStep::nearest(column.publish_step.into()),
            pending,
            annulled: column.annulled,
            people_digest: column.people_digest.map(PeopleDigest::from_bits),
            content_digest: column.content_digest.map(PeopleDigest::from_bits),
        };
        totals.is_consistent().then_some(totals)
    }
}

impl PendingStep {
    fn to_proto(&self) -> proto::PendingStep {
        proto::PendingStep {
            people: self.people,
            updated_at_ms: self.updated_at_ms,
            basis_points: self.categories.iter().map(|category| category.basis_points).collect(),
            people_by_percent: people_by_percent(&self.categories),
            changed_people: self.changed_people.clone(),
            annulled: self.annulled,
        }
    }

    fn from_proto(pending: proto::PendingStep) -> Option<Self> {
        let proto::PendingStep { people, updated_at_ms, annulled, .. } = pending;
        let sums = pending.basis_points.into_iter().map(Some);
        let categories = categories(sums, &pending.people_by_percent)?;
        let changed_people = pending.changed_people;
        Some(Self { people, updated_at_ms, categories, changed_people, annulled })
    }
}

/// The distributions of all categories, one after the other.
fn people_by_percent(categories: &[CategoryTotals]) -> Vec<u64> {
    categories.iter().flat_map(|category| category.people_by_percent.iter().copied()).collect()
}

/// Joins sums and distributions; `None` if their numbers differ, or a sum is missing.
fn categories(
    sums: impl ExactSizeIterator<Item = Option<u64>>,
    people_by_percent: &[u64],
) -> Option<Vec<CategoryTotals>> {
    let (bins, rest) = people_by_percent.as_chunks::<DISTRIBUTION_BINS>();
    if !rest.is_empty() || bins.len() != sums.len() {
        return None;
    }
    let category = |(sum, bins): (Option<u64>, &[u64; DISTRIBUTION_BINS])| {
        Some(CategoryTotals { basis_points: sum?, people_by_percent: Box::new(*bins) })
    };
    sums.zip(bins).map(category).collect()
}
