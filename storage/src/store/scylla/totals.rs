//! The `totals` table: checkpoints and totals, by lightweight transactions only.

use futures_util::future::try_join_all;
use schemas::{BudgetId, BudgetTotals, Generation, Offset, PartitionCount, PartitionId, Position};
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, MaybeUnset};

use super::{applied, unavailable};
use crate::log::LogIdentity;
use crate::store::{
    Checkpoint, Commit, Conditional, Epoch, PartitionRef, RecordMark, StoreError, StoredPartition,
    Tally,
};

const READ: &str = "SELECT epoch, owner, position, state_position, cluster_id, topic_id, last_offset, \
    last_fingerprint, applied, duplicates, dead_lettered, budget, budget_position, people, sums, distribution, \
    updated_at_ms FROM totals WHERE generation = ? AND partition = ?";
const CLAIM_FIRST: &str = "INSERT INTO totals (generation, partition, epoch, owner, position, state_position, \
    applied, duplicates, dead_lettered) VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0) IF NOT EXISTS";
const CLAIM: &str =
    "UPDATE totals SET epoch = ?, owner = ? WHERE generation = ? AND partition = ? IF epoch = ?";
const MOVE: &str = "UPDATE totals SET position = ?, state_position = ?, cluster_id = ?, topic_id = ?, \
    last_offset = ?, last_fingerprint = ?, applied = ?, duplicates = ?, dead_lettered = ? \
    WHERE generation = ? AND partition = ? IF epoch = ? AND position = ?";
const PUT: &str = "INSERT INTO totals (generation, partition, budget, budget_position, people, sums, distribution, \
    updated_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const OF_BUDGET: &str = "SELECT budget_position, people, sums, distribution, updated_at_ms FROM totals \
    WHERE generation = ? AND partition = ? AND budget = ?";
const IS_CLAIMED: &str = "SELECT epoch FROM totals WHERE generation = ? AND partition = ? LIMIT 1";

pub(super) struct Totals {
    read: PreparedStatement,
    claim_first: PreparedStatement,
    claim: PreparedStatement,
    advance: PreparedStatement,
    put: PreparedStatement,
    of_budget: PreparedStatement,
    is_claimed: PreparedStatement,
}

#[derive(DeserializeRow)]
struct Row {
    epoch: i64,
    owner: String,
    position: i64,
    state_position: i64,
    cluster_id: Option<String>,
    topic_id: Option<String>,
    last_offset: Option<i64>,
    last_fingerprint: Option<i64>,
    applied: i64,
    duplicates: i64,
    dead_lettered: i64,
    budget: Option<String>,
    budget_position: Option<i64>,
    people: Option<i64>,
    sums: Option<Vec<i64>>,
    distribution: Option<Vec<u8>>,
    updated_at_ms: Option<i64>,
}

type BudgetRow = (i64, i64, Vec<i64>, Vec<u8>, i64);

impl Totals {
    pub async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let mut read = session.prepare(READ).await.map_err(unavailable)?;
        // Linearizable: it also settles a conditional write that was left half done.
        read.set_consistency(Consistency::LocalSerial);
        Ok(Self {
            read,
            claim_first: session.prepare(CLAIM_FIRST).await.map_err(unavailable)?,
            claim: session.prepare(CLAIM).await.map_err(unavailable)?,
            advance: session.prepare(MOVE).await.map_err(unavailable)?,
            put: session.prepare(PUT).await.map_err(unavailable)?,
            of_budget: session.prepare(OF_BUDGET).await.map_err(unavailable)?,
            is_claimed: session.prepare(IS_CLAIMED).await.map_err(unavailable)?,
        })
    }

    pub async fn read(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        let result =
            session.execute_unpaged(&self.read, key(partition)).await.map_err(unavailable)?;
        let rows = result.into_rows_result().map_err(unavailable)?;
        let mut stored: Option<StoredPartition> = None;
        for row in rows.rows::<Row>().map_err(corrupt)? {
            let row = row.map_err(corrupt)?;
            let stored = match &mut stored {
                Some(stored) => stored,
                None => stored.insert(stored_partition(&row)?),
            };
            if let Some(totals) = budget_totals(row)? {
                stored.totals.push(totals);
            }
        }
        Ok(stored)
    }

    pub async fn claim(
        &self,
        session: &Session,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        let (generation, number) = key(partition);
        let result = match expected {
            None => {
                let values = (generation, number, next.0 as i64, owner);
                session.execute_unpaged(&self.claim_first, values).await
            }
            Some(expected) => {
                let values = (next.0 as i64, owner, generation, number, expected.0 as i64);
                session.execute_unpaged(&self.claim, values).await
            }
        };
        applied(result.map_err(unavailable)?)
    }

    pub async fn commit(
        &self,
        session: &Session,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.append_statement(self.advance.clone());
        let mut values = vec![advance_values(partition, commit)];
        for (budget, totals) in &commit.totals {
            batch.append_statement(self.put.clone());
            values.push(put_values(partition, budget, totals));
        }
        applied(session.batch(&batch, values).await.map_err(unavailable)?)
    }

    /// One small read a partition, at LOCAL_QUORUM: every commit that was answered is seen.
    pub async fn of_budget(
        &self,
        session: &Session,
        generation: Generation,
        partitions: PartitionCount,
        budget: &BudgetId,
    ) -> Result<Vec<Option<BudgetTotals>>, StoreError> {
        let reads = partitions.partitions().map(|partition| {
            self.of_partition(session, PartitionRef { generation, partition }, budget)
        });
        try_join_all(reads).await
    }

    async fn of_partition(
        &self,
        session: &Session,
        partition: PartitionRef,
        budget: &BudgetId,
    ) -> Result<Option<BudgetTotals>, StoreError> {
        let (generation, number) = key(partition);
        let values = (generation, number, budget.as_str());
        let result = session.execute_unpaged(&self.of_budget, values).await.map_err(unavailable)?;
        let rows = result.into_rows_result().map_err(unavailable)?;
        match rows.maybe_first_row::<BudgetRow>().map_err(corrupt)? {
            Some((position, people, sums, distribution, updated_at_ms)) => {
                let totals = from_columns(position, people, updated_at_ms, &sums, &distribution);
                totals.map(Some).ok_or_else(|| damaged(partition.partition, budget.as_str()))
            }
            // A claimed partition that knows nothing of the budget counts nobody; an unclaimed one is missing.
            None => {
                let result = session.execute_unpaged(&self.is_claimed, key(partition)).await;
                let rows = result.map_err(unavailable)?.into_rows_result().map_err(unavailable)?;
                Ok((rows.rows_num() > 0).then(BudgetTotals::default))
            }
        }
    }
}

pub(super) fn key(partition: PartitionRef) -> (i32, i32) {
    (partition.generation.0 as i32, partition.partition.0 as i32)
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

fn damaged(partition: PartitionId, budget: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "the totals of budget `{budget}` in partition {partition} contradict themselves"
    ))
}

fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(corrupt)
}

fn stored_partition(row: &Row) -> Result<StoredPartition, StoreError> {
    let identity = match (&row.cluster_id, &row.topic_id) {
        (Some(cluster_id), topic_id) => Some(LogIdentity {
            cluster_id: cluster_id.clone(),
            topic_id: topic_id.clone().unwrap_or_default(),
        }),
        (None, _) => None,
    };
    let last_record = match (row.last_offset, row.last_fingerprint) {
        (Some(offset), Some(fingerprint)) => {
            Some(RecordMark { offset: Offset(unsigned(offset)?), fingerprint: fingerprint as u64 })
        }
        _ => None,
    };
    Ok(StoredPartition {
        epoch: Epoch(unsigned(row.epoch)?),
        owner: row.owner.clone(),
        checkpoint: Checkpoint {
            position: Position(unsigned(row.position)?),
            state_position: Position(unsigned(row.state_position)?),
            identity,
            last_record,
            tally: Tally {
                applied: unsigned(row.applied)?,
                duplicates: unsigned(row.duplicates)?,
                dead_lettered: unsigned(row.dead_lettered)?,
            },
        },
        totals: Vec::new(),
    })
}

fn budget_totals(row: Row) -> Result<Option<(BudgetId, BudgetTotals)>, StoreError> {
    let Some(budget) = row.budget else { return Ok(None) };
    let id = BudgetId::parse(&budget).map_err(corrupt)?;
    let totals =
        match (row.budget_position, row.people, row.sums, row.distribution, row.updated_at_ms) {
            (Some(position), Some(people), sums, distribution, Some(updated_at_ms)) => {
                from_columns(
                    position,
                    people,
                    updated_at_ms,
                    &sums.unwrap_or_default(),
                    &distribution.unwrap_or_default(),
                )
            }
            _ => None,
        };
    totals
        .map(|totals| Some((id, totals)))
        .ok_or_else(|| StoreError::Corrupt(format!("a row of budget `{budget}`")))
}

fn from_columns(
    position: i64,
    people: i64,
    at_ms: i64,
    sums: &[i64],
    distribution: &[u8],
) -> Option<BudgetTotals> {
    let position = Position(u64::try_from(position).ok()?);
    BudgetTotals::from_columns(
        position,
        u64::try_from(people).ok()?,
        at_ms as u64,
        sums,
        distribution,
    )
}

type Value = MaybeUnset<CqlValue>;

fn bigint(value: u64) -> Value {
    MaybeUnset::Set(CqlValue::BigInt(value as i64))
}

fn advance_values(partition: PartitionRef, commit: &Commit) -> Vec<Value> {
    let (generation, number) = key(partition);
    let Checkpoint { position, state_position, identity, last_record, tally } = &commit.checkpoint;
    let text = |text: &str| CqlValue::Text(text.to_owned());
    vec![
        bigint(position.0),
        bigint(state_position.0),
        MaybeUnset::from_option(identity.as_ref().map(|identity| text(&identity.cluster_id))),
        MaybeUnset::from_option(identity.as_ref().map(|identity| text(&identity.topic_id))),
        last_record.map_or(MaybeUnset::Unset, |mark| bigint(mark.offset.0)),
        last_record.map_or(MaybeUnset::Unset, |mark| bigint(mark.fingerprint)),
        bigint(tally.applied),
        bigint(tally.duplicates),
        bigint(tally.dead_lettered),
        MaybeUnset::Set(CqlValue::Int(generation)),
        MaybeUnset::Set(CqlValue::Int(number)),
        bigint(commit.epoch.0),
        bigint(commit.from.0),
    ]
}

fn put_values(partition: PartitionRef, budget: &BudgetId, totals: &BudgetTotals) -> Vec<Value> {
    let (generation, number) = key(partition);
    let sums = totals
        .categories
        .iter()
        .map(|category| CqlValue::BigInt(category.basis_points as i64))
        .collect();
    vec![
        MaybeUnset::Set(CqlValue::Int(generation)),
        MaybeUnset::Set(CqlValue::Int(number)),
        MaybeUnset::Set(CqlValue::Text(budget.to_string())),
        bigint(totals.position.0),
        bigint(totals.people),
        MaybeUnset::Set(CqlValue::List(sums)),
        MaybeUnset::Set(CqlValue::Blob(totals.encode_distribution())),
        bigint(totals.updated_at_ms),
    ]
}
