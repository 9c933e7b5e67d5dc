//! The `allocations` table: people's rows, by plain writes with the record's offset as their timestamp.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{PersonKey, PersonRow, bucket_of};
use scylla::client::session::Session;
use scylla::response::PagingState;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::totals::key;
use super::unavailable;
use crate::store::{PartitionRef, StoreError};

/// Rows of a batch: one bucket's, so that it is one mutation of one Scylla partition.
const BATCH_ROWS: usize = 150;
const BATCHES_IN_FLIGHT: usize = 8;
const PAGE_ROWS: i32 = 5_000;

const WRITE: &str = "INSERT INTO allocations (generation, partition, bucket, person, state) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?";
const READ_BUCKET: &str =
    "SELECT person, state FROM allocations WHERE generation = ? AND partition = ? AND bucket = ?";
const READ_ONE: &str = "SELECT state FROM allocations WHERE generation = ? AND partition = ? AND bucket = ? AND person = ?";

type WriteValues = (i32, i32, i32, Vec<u8>, Vec<u8>, i64);

pub(super) struct People {
    write: PreparedStatement,
    read_bucket: PreparedStatement,
    read_one: PreparedStatement,
}

impl People {
    pub async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let mut write = session.prepare(WRITE).await.map_err(unavailable)?;
        write.set_is_idempotent(true);
        let mut read_bucket = session.prepare(READ_BUCKET).await.map_err(unavailable)?;
        read_bucket.set_page_size(PAGE_ROWS);
        read_bucket.set_use_cached_result_metadata(true);
        let read_one = session.prepare(READ_ONE).await.map_err(unavailable)?;
        Ok(Self { write, read_bucket, read_one })
    }

    pub async fn write(
        &self,
        session: &Session,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let mut buckets: BTreeMap<u8, Vec<&PersonRow>> = BTreeMap::new();
        for row in rows {
            buckets.entry(bucket_of(&row.person)).or_default().push(row);
        }
        let mut writes = Vec::new();
        for (bucket, rows) in &buckets {
            for rows in rows.chunks(BATCH_ROWS) {
                let (batch, values) = self.batch(partition, *bucket, rows);
                writes.push(async move {
                    session.batch(&batch, values).await.map(|_| ()).map_err(unavailable)
                });
            }
        }
        stream::iter(writes).buffer_unordered(BATCHES_IN_FLIGHT).try_collect().await
    }

    fn batch(
        &self,
        partition: PartitionRef,
        bucket: u8,
        rows: &[&PersonRow],
    ) -> (Batch, Vec<WriteValues>) {
        let (generation, number) = key(partition);
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            batch.append_statement(self.write.clone());
            // Timestamps start at 1: 0 and below are not writes of their own everywhere.
            let timestamp = row.offset.0 as i64 + 1;
            let person = row.person.as_bytes().to_vec();
            values.push((
                generation,
                number,
                i32::from(bucket),
                person,
                row.encode_state(),
                timestamp,
            ));
        }
        (batch, values)
    }

    pub async fn read_bucket(
        &self,
        session: &Session,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let (generation, number) = key(partition);
        let values = (generation, number, i32::from(bucket));
        let mut paging = PagingState::start();
        loop {
            let (page, next) = session
                .execute_single_page(&self.read_bucket, values, paging)
                .await
                .map_err(unavailable)?;
            let page = page.into_rows_result().map_err(unavailable)?;
            for columns in page.rows::<(&[u8], &[u8])>().map_err(unavailable)? {
                let (person, state) = columns.map_err(unavailable)?;
                row(decode(person, state)?);
            }
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(next) => paging = next,
            }
        }
    }

    pub async fn read_one(
        &self,
        session: &Session,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        let (generation, number) = key(partition);
        let values =
            (generation, number, i32::from(bucket_of(person)), person.as_bytes().as_slice());
        let result = session.execute_unpaged(&self.read_one, values).await.map_err(unavailable)?;
        let rows = result.into_rows_result().map_err(unavailable)?;
        match rows.maybe_first_row::<(&[u8],)>().map_err(unavailable)? {
            Some((state,)) => decode(person.as_bytes(), state).map(Some),
            None => Ok(None),
        }
    }
}

fn decode(person: &[u8], state: &[u8]) -> Result<PersonRow, StoreError> {
    PersonRow::decode(person, state).map_err(|fault| StoreError::Corrupt(fault.to_string()))
}
