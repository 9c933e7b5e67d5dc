//! How much one commit contains.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::partition::OwnerExit;
use schemas::{
    Action, Allocation, BudgetId, Offset, PersonKey, Position, Submission, SubmissionId,
    encode_record,
};
use storage::log::{LogBounds, Record, RecordBatch};
use storage::store::Checkpoints;

use crate::PARTITION;
use crate::support::store::FaultyStore;
use crate::test_owner::take_over_log;

const BUDGETS: u64 = 400;
const CATEGORIES: usize = 64;
/// A count of up to 127 people takes a byte: 64 sums and distributions take at least this much.
const MIN_BUDGET_BYTES: u64 = CATEGORIES as u64 * 101;
/// What the store accepts as one batch.
const MAX_BATCH_BYTES: u64 = 1 << 20;

/// A batch in which each record is of another budget with as many categories as there can be.
fn batch_of_many_budgets() -> RecordBatch {
    let mut shares = [100; CATEGORIES];
    shares[0] = 10_000 - 100 * (CATEGORIES as u32 - 1);
    let mut batch = RecordBatch::new(PARTITION.partition);
    for offset in 0..BUDGETS {
        let person = PersonKey::from_bytes(u128::from(offset).to_le_bytes());
        let value = encode_record(&Submission {
            budget: BudgetId::parse(&format!("budget-{offset}")).unwrap(),
            person,
            id: SubmissionId(uuid::Uuid::from_u128(u128::from(offset))),
            accepted_at_ms: offset,
            action: Action::Allocate(Allocation::new(&shares).unwrap()),
        });
        batch.push(Record { offset: Offset(offset), key: person.as_bytes(), value: &value });
    }
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_changes_many_budgets_is_committed_in_parts_that_the_store_accepts() {
    let store = Arc::new(FaultyStore::default());
    let bounds = LogBounds { low: Position(0), high: Position(BUDGETS) };
    let mut owner = take_over_log(&store, bounds, "owner").await;
    owner.send_batch(batch_of_many_budgets()).await;
    owner.committed(BUDGETS).await;
    assert_eq!(owner.release().await, OwnerExit::Released);

    let most = store.most_budgets_in_a_commit.load(Ordering::Relaxed);
    assert!(most * MIN_BUDGET_BYTES < MAX_BATCH_BYTES, "{most} budgets in one commit");
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.totals.len() as u64, BUDGETS);
    assert!(stored.totals.iter().all(|(_, totals)| totals.people == 1));
}
