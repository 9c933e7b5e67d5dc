//! Person rows: written in large batches after the commits, and restored as a whole at a takeover.
//!
//! A write's timestamp is its offset, so of two writes of one row the higher offset wins, in any order, and a write is
//! idempotent. No lightweight transaction may ever write this table: its timestamp would be the time of day, above
//! every offset.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{Offset, PersonKey, PersonRow, PersonRowDecoder, bucket_of, buckets};
use scylla::client::session::Session;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::session::{
    bigint, corrupt, idempotent_retry_policy, int, prepare_idempotent, unavailable,
};
use crate::store::{PartitionRef, StoreError};

/// Rows in one batch: enough to amortize the cost of a request, and about 40 kB at most.
const BATCH_ROWS: usize = 150;

/// Maximum concurrent batches of one call.
const BATCHES_IN_FLIGHT: usize = 8;

/// Rows in one page: about a megabyte. Each page costs the server a search in its bucket.
const PAGE_ROWS: i32 = 10_000;

/// Prepared statements for person rows.
pub(super) struct PersonStatements {
    write: PreparedStatement,
    read_bucket: PreparedStatement,
    read_one: PreparedStatement,
    delete_bucket: PreparedStatement,
}

impl PersonStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let mut read_bucket = prepare_idempotent(
            session,
            "SELECT person, state FROM allocations \
             WHERE generation = ? AND partition = ? AND bucket = ?",
            Consistency::LocalQuorum,
        )
        .await?;
        read_bucket.set_page_size(PAGE_ROWS);
        Ok(Self {
            write: prepare_idempotent(
                session,
                "INSERT INTO allocations (generation, partition, bucket, person, state) \
                 VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?",
                Consistency::LocalQuorum,
            )
            .await?,
            read_bucket,
            read_one: prepare_idempotent(
                session,
                "SELECT person, state FROM allocations \
                 WHERE generation = ? AND partition = ? AND bucket = ? AND person = ?",
                Consistency::LocalQuorum,
            )
            .await?,
            delete_bucket: prepare_idempotent(
                session,
                "DELETE FROM allocations USING TIMESTAMP ? \
                 WHERE generation = ? AND partition = ? AND bucket = ?",
                Consistency::LocalQuorum,
            )
            .await?,
        })
    }

    /// Writes rows in batches, each of one Scylla partition: such a batch is one write on a replica.
    pub(super) async fn write(
        &self,
        session: &Session,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let mut by_bucket: Vec<Vec<&PersonRow>> = buckets().map(|_| Vec::new()).collect();
        for row in rows {
            by_bucket[usize::from(bucket_of(&row.person))].push(row);
        }
        let batches = by_bucket
            .iter()
            .zip(buckets())
            .flat_map(|(rows, bucket)| rows.chunks(BATCH_ROWS).map(move |rows| (bucket, rows)))
            .map(|(bucket, rows)| self.write_batch(session, partition, bucket, rows))
            .collect::<Vec<_>>();
        stream::iter(batches).buffer_unordered(BATCHES_IN_FLIGHT).try_collect().await
    }

    async fn write_batch(
        &self,
        session: &Session,
        partition: PartitionRef,
        bucket: u8,
        rows: &[&PersonRow],
    ) -> Result<(), StoreError> {
        let (generation, number) = (int(partition.generation.0)?, int(partition.partition.0)?);
        let statements = rows.iter().map(|_| self.write.clone().into()).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_is_idempotent(true);
        batch.set_retry_policy(Some(idempotent_retry_policy()));
        let values = rows
            .iter()
            .map(|row| {
                let person = row.person.as_bytes().as_slice();
                let stamp = timestamp(row.offset)?;
                let state = row.encode_state();
                Ok((generation, number, i32::from(bucket), person, state, stamp))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        session.batch(&batch, values).await.map_err(unavailable)?;
        Ok(())
    }

    pub(super) async fn read_bucket(
        &self,
        session: &Session,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let (generation, number) = (int(partition.generation.0)?, int(partition.partition.0)?);
        let key = (generation, number, i32::from(bucket));
        let (mut from, mut decoder) = (PagingState::start(), PersonRowDecoder::default());
        loop {
            let page = session.execute_single_page(&self.read_bucket, key, from);
            let (response, next) = page.await.map_err(unavailable)?;
            let rows = response.into_rows_result().map_err(corrupt)?;
            for columns in rows.rows::<(&[u8], &[u8])>().map_err(corrupt)? {
                let (person, state) = columns.map_err(corrupt)?;
                row(decoder.decode(person, state).map_err(corrupt)?);
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    /// Deletes all rows of a partition permanently.
    pub(super) async fn delete(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<(), StoreError> {
        let (generation, number) = (int(partition.generation.0)?, int(partition.partition.0)?);
        let deletions = buckets().map(|bucket| {
            let key = (DELETION_TIMESTAMP, generation, number, i32::from(bucket));
            session.execute_unpaged(&self.delete_bucket, key)
        });
        let done = stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(BATCHES_IN_FLIGHT);
        done.map_err(unavailable).try_for_each(async |_| Ok(())).await
    }

    pub(super) async fn read_one(
        &self,
        session: &Session,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        let (generation, number) = (int(partition.generation.0)?, int(partition.partition.0)?);
        let key = (generation, number, i32::from(bucket_of(person)), person.as_bytes().as_slice());
        let response = session.execute_unpaged(&self.read_one, key).await.map_err(unavailable)?;
        let rows = response.into_rows_result().map_err(corrupt)?;
        let Some((person, state)) = rows.maybe_first_row::<(&[u8], &[u8])>().map_err(corrupt)?
        else {
            return Ok(None);
        };
        PersonRow::decode(person, state).map(Some).map_err(corrupt)
    }
}

/// Timestamp of deletions, above the timestamp of every row, which is an offset: rows written later stay deleted. In
/// microseconds it is a day in 2005, since ScyllaDB rejects timestamps of the future.
const DELETION_TIMESTAMP: i64 = 1 << 50;

/// The timestamp of a row: its offset plus one, since servers may reject timestamps that are not positive.
fn timestamp(offset: Offset) -> Result<i64, StoreError> {
    bigint(offset.next().0)
}
