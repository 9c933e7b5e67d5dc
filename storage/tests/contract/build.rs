//! Builds small test data for the suites.

use schemas::{
    BASIS_POINTS_PER_PERSON, Budget, BudgetId, BudgetTotals, Category, CategoryId, CategoryTotals,
    DISTRIBUTION_BINS, IdentityRule, Offset, PartitionCount, PeopleDigest, PersonKey, PersonRow,
    Position, RECENT_SUBMISSIONS, ResultsVisibility, SubmissionFingerprint,
};
use uuid::Uuid;

/// Returns a budget id that no other test uses.
pub fn new_budget_id() -> BudgetId {
    BudgetId::parse(&format!("budget-{}", Uuid::new_v4())).unwrap()
}

pub fn count(partitions: u64) -> PartitionCount {
    PartitionCount::new(partitions).unwrap()
}

/// Builds a valid definition with two categories.
pub fn budget(id: &BudgetId) -> Budget {
    Budget {
        id: id.clone(),
        name: "A budget".into(),
        categories: ["health", "education"].map(category).to_vec(),
        opens_at: None,
        closes_at: None,
        results: ResultsVisibility::Live,
        minimum_people: 1,
        max_people: None,
        publish_step: 1,
        identity: IdentityRule::Required,
        presentation: Default::default(),
        revision: 0,
        frozen: false,
        closing: None,
        person_salt: Default::default(),
    }
}

pub fn category(id: &str) -> Category {
    Category {
        id: CategoryId::parse(id).unwrap(),
        name: id.to_owned(),
        description: None,
        color: None,
    }
}

/// Builds consistent totals of this many people and categories. Equal arguments give equal totals.
pub fn totals(position: u64, people: u64, categories: usize) -> BudgetTotals {
    let small = categories as u64 - 1;
    let categories = (0..categories).map(|index| {
        let mut counts = [0; DISTRIBUTION_BINS];
        counts[index] = people / 3;
        counts[DISTRIBUTION_BINS - 1 - index] += people - people / 3;
        // The first category gets the rest of every person's 100 %.
        let rest = (people * BASIS_POINTS_PER_PERSON).saturating_sub(small);
        let basis_points = if index == 0 { rest } else { 1.min(people) };
        CategoryTotals { basis_points, people_by_percent: Box::new(counts) }
    });
    let totals = BudgetTotals {
        position: Position(position),
        people,
        updated_at_ms: 1_800_000_000_000 + position,
        annulled: people / 9,
        people_digest: Some(PeopleDigest::from_bits(u64::MAX - position)),
        content_digest: Some(PeopleDigest::from_bits(position)),
        categories: categories.collect(),
        ..BudgetTotals::default()
    };
    assert!(totals.is_consistent());
    totals
}

/// Builds a key in a bucket. Different numbers give different keys.
pub fn person(number: u64, bucket: u8) -> PersonKey {
    let mut bytes = [0; PersonKey::BYTES];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[PersonKey::BYTES - 1] = bucket;
    PersonKey::from_bytes(bytes)
}

/// Builds a person row as of an offset. Rows of different offsets differ in every variable field.
pub fn row(person: PersonKey, offset: u64) -> PersonRow {
    let share = (offset % 10_000) as u16;
    let mut recent = [None; RECENT_SUBMISSIONS];
    recent[0] = Some(SubmissionFingerprint(u64::MAX - offset));
    PersonRow {
        person,
        budget: BudgetId::parse("taxes").unwrap(),
        offset: Offset(offset),
        basis_points: vec![share, 10_000 - share],
        annulled: offset.is_multiple_of(7),
        recent,
    }
}
