//! Totals and checkpoints: one Scylla partition for each partition of a log, written by lightweight transactions only.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{BudgetId, BudgetTotals, Generation, Offset, PartitionCount, Position};
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::MaybeUnset;

use super::retirement::RETIRED_EPOCH;
use super::session::{
    bigint, corrupt, outcome, partition_key, prepare_conditional, prepare_idempotent, unavailable,
    unsigned,
};
use crate::log_identity::LogIdentity;
use crate::store::{
    BudgetSummary, CasOutcome, Checkpoint, Commit, DamagedTotals, Epoch, PartitionRef,
    RecordCounts, RecordFingerprint, StoreError, StoredPartition,
};

/// Maximum concurrent partition reads of one summary.
const READS_IN_FLIGHT: usize = 64;
/// Budgets named in one query: ScyllaDB refuses more than a hundred clustering keys, by default.
const MAX_BUDGETS_PER_READ: usize = 50;

/// Prepared statements for totals and checkpoints.
pub(super) struct TotalsStatements {
    claim_first: PreparedStatement,
    claim: PreparedStatement,
    commit_checkpoint: PreparedStatement,
    commit_budget: PreparedStatement,
    read_partition: PreparedStatement,
    read_budgets: PreparedStatement,
    read_epoch: PreparedStatement,
    read_rows_position: PreparedStatement,
}

impl TotalsStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            claim_first: prepare_conditional(
                session,
                "INSERT INTO totals (generation, partition, epoch, owner, position, \
                 state_position, applied, duplicates, dead_lettered) \
                 VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0) IF NOT EXISTS",
            )
            .await?,
            claim: prepare_conditional(
                session,
                "UPDATE totals SET epoch = ?, owner = ? WHERE generation = ? AND partition = ? \
                 IF epoch = ?",
            )
            .await?,
            commit_checkpoint: prepare_conditional(
                session,
                "UPDATE totals SET position = ?, state_position = ?, cluster_id = ?, \
                 topic_id = ?, last_offset = ?, last_fingerprint = ?, applied = ?, \
                 duplicates = ?, dead_lettered = ? \
                 WHERE generation = ? AND partition = ? IF epoch = ? AND position = ?",
            )
            .await?,
            commit_budget: prepare_conditional(
                session,
                "INSERT INTO totals (generation, partition, budget, budget_position, people, \
                 sums, distribution, updated_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .await?,
            // Serial: sees every acknowledged write, and settles an unacknowledged one.
            read_partition: prepare_idempotent(
                session,
                "SELECT epoch, owner, position, state_position, cluster_id, topic_id, \
                 last_offset, last_fingerprint, applied, duplicates, dead_lettered, budget, \
                 budget_position, people, sums, distribution, updated_at_ms \
                 FROM totals WHERE generation = ? AND partition = ?",
                Consistency::LocalSerial,
            )
            .await?,
            // A quorum instead of one replica: a replica that was down can be minutes behind, and its totals would lack
            // people. A quorum includes every acknowledged commit, without a Paxos round.
            read_budgets: prepare_idempotent(
                session,
                "SELECT budget, budget_position, people, sums, distribution, updated_at_ms, epoch \
                 FROM totals WHERE generation = ? AND partition = ? AND budget IN ?",
                Consistency::LocalQuorum,
            )
            .await?,
            read_epoch: prepare_idempotent(
                session,
                "SELECT epoch FROM totals WHERE generation = ? AND partition = ? LIMIT 1",
                Consistency::LocalQuorum,
            )
            .await?,
            read_rows_position: prepare_idempotent(
                session,
                "SELECT state_position, epoch FROM totals WHERE generation = ? AND partition = ? LIMIT 1",
                Consistency::LocalQuorum,
            )
            .await?,
        })
    }

    pub(super) async fn claim(
        &self,
        session: &Session,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let (generation, number) = partition_key(partition)?;
        let next = bigint(next.0)?;
        let response = match expected {
            None => {
                let values = (generation, number, next, owner);
                session.execute_unpaged(&self.claim_first, values).await
            }
            Some(expected) => {
                let values = (next, owner, generation, number, bigint(expected.0)?);
                session.execute_unpaged(&self.claim, values).await
            }
        };
        outcome(response.map_err(unavailable)?)
    }

    pub(super) async fn commit(
        &self,
        session: &Session,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        let (generation, number) = partition_key(partition)?;
        let Checkpoint { position, rows_position, identity, last_record, tally } =
            &commit.checkpoint;

        // Unset, never NULL: an absent value must not become a tombstone.
        let identity = identity.as_ref();
        let checkpoint = (
            bigint(position.0)?,
            bigint(rows_position.0)?,
            MaybeUnset::from_option(identity.map(|log| log.cluster_id.as_str())),
            MaybeUnset::from_option(identity.map(|log| log.topic_id.as_str())),
            MaybeUnset::from_option(last_record.map(|r| bigint(r.offset.0)).transpose()?),
            MaybeUnset::from_option(last_record.map(|r| r.fingerprint.cast_signed())),
            bigint(tally.applied)?,
            bigint(tally.duplicates)?,
            bigint(tally.dead_lettered)?,
            generation,
            number,
            bigint(commit.epoch.0)?,
            bigint(commit.from.0)?,
        );
        let mut values: Vec<Box<dyn SerializeRow + Send + Sync>> = vec![Box::new(checkpoint)];
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.append_statement(self.commit_checkpoint.clone());
        for (budget, totals) in &commit.totals {
            let sums = totals.categories.iter().map(|category| bigint(category.basis_points));
            values.push(Box::new((
                generation,
                number,
                budget.as_str(),
                bigint(totals.position.0)?,
                bigint(totals.people)?,
                sums.collect::<Result<Vec<_>, _>>()?,
                totals.encode_distribution(),
                bigint(totals.updated_at_ms)?,
            )));
            batch.append_statement(self.commit_budget.clone());
        }
        outcome(session.batch(&batch, values).await.map_err(unavailable)?)
    }

    pub(super) async fn read_partition(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        let key = partition_key(partition)?;
        let response =
            session.execute_unpaged(&self.read_partition, key).await.map_err(unavailable)?;
        let rows = response.into_rows_result().map_err(corrupt)?;
        let mut stored: Option<StoredPartition> = None;
        for row in rows.rows::<PartitionRow>().map_err(corrupt)? {
            let mut row = row.map_err(corrupt)?;
            let totals = row.take_budget(partition)?;
            let partition = match stored.take() {
                Some(stored) => Some(stored),
                None => row.into_partition()?,
            };
            stored = partition.map(|mut partition| {
                partition.totals.extend(totals);
                partition
            });
        }
        Ok(stored)
    }

    pub(super) async fn rows_position(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        let key = partition_key(partition)?;
        let response = session.execute_unpaged(&self.read_rows_position, key).await;
        let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let first = rows.maybe_first_row::<(Option<i64>, Option<i64>)>().map_err(corrupt)?;
        let Some((stored, epoch)) = first else { return Ok(None) };
        if !is_claimed(epoch) {
            return Ok(None);
        }
        Ok(Some(Position(unsigned(present(stored, "state_position")?)?)))
    }

    pub(super) async fn epoch(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<Option<Epoch>, StoreError> {
        let response = session.execute_unpaged(&self.read_epoch, partition_key(partition)?).await;
        let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let first = rows.maybe_first_row::<(Option<i64>,)>().map_err(corrupt)?;
        let claimed = first.and_then(|(epoch,)| epoch).filter(|epoch| is_claimed(Some(*epoch)));
        claimed.map(|epoch| Ok(Epoch(unsigned(epoch)?))).transpose()
    }

    pub(super) async fn summaries(
        &self,
        session: &Session,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        let mut summaries = Vec::with_capacity(budgets.len());
        for some in budgets.chunks(MAX_BUDGETS_PER_READ) {
            summaries.extend(self.some_summaries(session, generation, partitions, some).await?);
        }
        Ok(summaries)
    }

    async fn some_summaries(
        &self,
        session: &Session,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        let ids: Vec<&str> = budgets.iter().map(BudgetId::as_str).collect();
        let reads: Vec<_> = partitions
            .partitions()
            .map(|partition| {
                self.read_budgets(session, PartitionRef { generation, partition }, &ids)
            })
            .collect();
        let parts: Vec<Option<Part>> =
            stream::iter(reads).buffered(READS_IN_FLIGHT).try_collect().await?;
        let totals =
            |budget: &BudgetId, part: &Option<Part>| match part.as_ref()?.get(budget.as_str()) {
                Some(totals) => Some(totals.clone()),
                None => Some(Ok(BudgetTotals::default())),
            };
        let summary = |budget| parts.iter().map(|part| totals(budget, part).transpose()).collect();
        Ok(budgets.iter().map(summary).collect())
    }

    /// Reads the totals of budgets in one partition; `None` if it was never claimed or is retired.
    async fn read_budgets(
        &self,
        session: &Session,
        partition: PartitionRef,
        budgets: &[&str],
    ) -> Result<Option<Part>, StoreError> {
        let (generation, number) = partition_key(partition)?;
        let values = (generation, number, budgets);
        let response = session.execute_unpaged(&self.read_budgets, values).await;
        let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let mut part = Part::new();
        for row in rows.rows::<BudgetRow>().map_err(corrupt)? {
            let (budget, position, people, sums, distribution, updated_at_ms, epoch) =
                row.map_err(corrupt)?;
            // Its totals are being deleted: the rest of them are not a summary.
            if !is_claimed(epoch) {
                return Ok(None);
            }
            let columns = (position, people, sums, distribution, updated_at_ms);
            let totals = totals_from(partition, budget, columns);
            part.insert(
                budget.to_owned(),
                totals.map_err(|error| DamagedTotals(error.to_string())),
            );
        }
        if !part.is_empty() {
            return Ok(Some(part));
        }
        // An absent row does not return the static columns either: read them alone.
        Ok(self.epoch(session, partition).await?.map(|_| part))
    }
}

/// Totals of several budgets in one partition, by budget id.
type Part = HashMap<String, Result<BudgetTotals, DamagedTotals>>;

/// A row of [`TotalsStatements::read_budgets`]: budget, its columns, and the partition's epoch.
type BudgetRow<'a> = (&'a str, i64, i64, Vec<i64>, &'a [u8], i64, Option<i64>);

/// Whether an epoch is that of a claim, and not of a retirement.
fn is_claimed(epoch: Option<i64>) -> bool {
    epoch.is_some_and(|epoch| epoch != RETIRED_EPOCH)
}

/// Columns of a budget: position, people, sums, distribution, time of the latest change.
type BudgetColumns<'a> = (i64, i64, Vec<i64>, &'a [u8], i64);

fn totals_from(
    partition: PartitionRef,
    budget: &str,
    (position, people, sums, distribution, updated_at_ms): BudgetColumns,
) -> Result<BudgetTotals, StoreError> {
    let position = Position(unsigned(position)?);
    let (people, updated_at_ms) = (unsigned(people)?, unsigned(updated_at_ms)?);
    BudgetTotals::from_columns(position, people, updated_at_ms, &sums, distribution).ok_or_else(
        || {
            let PartitionRef { generation, partition } = partition;
            corrupt(format!(
                "the totals of budget {budget} in partition {partition} of generation \
                 {generation} are inconsistent"
            ))
        },
    )
}

/// A row of the table: the static columns, which are the same in all rows of a partition, and the columns of a budget,
/// which are absent in a partition without budgets.
#[derive(DeserializeRow)]
struct PartitionRow<'a> {
    epoch: Option<i64>,
    owner: Option<&'a str>,
    position: Option<i64>,
    state_position: Option<i64>,
    cluster_id: Option<&'a str>,
    topic_id: Option<&'a str>,
    last_offset: Option<i64>,
    last_fingerprint: Option<i64>,
    applied: Option<i64>,
    duplicates: Option<i64>,
    dead_lettered: Option<i64>,
    budget: Option<&'a str>,
    budget_position: Option<i64>,
    people: Option<i64>,
    sums: Option<Vec<i64>>,
    distribution: Option<&'a [u8]>,
    updated_at_ms: Option<i64>,
}

impl PartitionRow<'_> {
    fn take_budget(
        &mut self,
        partition: PartitionRef,
    ) -> Result<Option<(BudgetId, BudgetTotals)>, StoreError> {
        let Some(budget) = self.budget else {
            return Ok(None);
        };
        let budget = BudgetId::parse(budget).map_err(corrupt)?;
        let columns = (
            present(self.budget_position, "budget_position")?,
            present(self.people, "people")?,
            // A server does not distinguish an empty list from none.
            self.sums.take().unwrap_or_default(),
            self.distribution.unwrap_or_default(),
            present(self.updated_at_ms, "updated_at_ms")?,
        );
        let totals = totals_from(partition, budget.as_str(), columns)?;
        Ok(Some((budget, totals)))
    }

    /// Decodes the partition without its budgets; `None` if it was never claimed or is retired.
    fn into_partition(self) -> Result<Option<StoredPartition>, StoreError> {
        let Some(epoch) = self.epoch.filter(|epoch| is_claimed(Some(*epoch))) else {
            return Ok(None);
        };
        let number = |column: Option<i64>, name| unsigned(present(column, name)?);
        let identity = match (self.cluster_id, self.topic_id) {
            (None, None) => None,
            (cluster_id, topic_id) => Some(LogIdentity {
                cluster_id: present(cluster_id, "cluster_id")?.to_owned(),
                topic_id: present(topic_id, "topic_id")?.to_owned(),
            }),
        };
        let last_record = match (self.last_offset, self.last_fingerprint) {
            (None, None) => None,
            (offset, fingerprint) => Some(RecordFingerprint {
                offset: Offset(number(offset, "last_offset")?),
                fingerprint: present(fingerprint, "last_fingerprint")?.cast_unsigned(),
            }),
        };
        Ok(Some(StoredPartition {
            epoch: Epoch(unsigned(epoch)?),
            owner: present(self.owner, "owner")?.to_owned(),
            checkpoint: Checkpoint {
                position: Position(number(self.position, "position")?),
                rows_position: Position(number(self.state_position, "state_position")?),
                identity,
                last_record,
                tally: RecordCounts {
                    applied: number(self.applied, "applied")?,
                    duplicates: number(self.duplicates, "duplicates")?,
                    dead_lettered: number(self.dead_lettered, "dead_lettered")?,
                },
            },
            totals: Vec::new(),
        }))
    }
}

/// Unwraps a column that every commit writes.
fn present<T>(column: Option<T>, name: &str) -> Result<T, StoreError> {
    column.ok_or_else(|| corrupt(format!("a row of the totals table has no {name}")))
}
