//! Which generation answers the public: a record for each generation, and one row that points at the current one.

use schemas::{Generation, PartitionCount};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::session::{corrupt, int, outcome, prepare_conditional, prepare_repeatable, unavailable};
use crate::store::{GenerationRecord, StoreError};

const READ_POINTER: &str = "SELECT generation FROM current_generation WHERE id = 'current'";

pub(super) struct Generations {
    read_pointer: PreparedStatement,
    settle_pointer: PreparedStatement,
    read_record: PreparedStatement,
    record: PreparedStatement,
    point: PreparedStatement,
}

impl Generations {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            // A quorum has every flip that was answered, and costs no round of Paxos: all readers ask for this row.
            read_pointer: prepare_repeatable(session, READ_POINTER, Consistency::LocalQuorum)
                .await?,
            // Serial: settles a flip that is on its way, so that all who begin are told the same.
            settle_pointer: prepare_repeatable(session, READ_POINTER, Consistency::LocalSerial)
                .await?,
            // A record never changes, and is answered before anything points at it.
            read_record: prepare_repeatable(
                session,
                "SELECT topic, partition_count FROM generations WHERE generation = ?",
                Consistency::LocalQuorum,
            )
            .await?,
            record: prepare_conditional(
                session,
                "INSERT INTO generations (generation, topic, partition_count) VALUES (?, ?, ?) \
                 IF NOT EXISTS",
            )
            .await?,
            point: prepare_conditional(
                session,
                "INSERT INTO current_generation (id, generation) VALUES ('current', ?) \
                 IF NOT EXISTS",
            )
            .await?,
        })
    }

    pub(super) async fn current(
        &self,
        session: &Session,
    ) -> Result<Option<GenerationRecord>, StoreError> {
        self.pointed_at(session, &self.read_pointer).await
    }

    async fn pointed_at(
        &self,
        session: &Session,
        pointer: &PreparedStatement,
    ) -> Result<Option<GenerationRecord>, StoreError> {
        let answer = session.execute_unpaged(pointer, ()).await.map_err(unavailable)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        let Some((number,)) = rows.maybe_first_row::<(i32,)>().map_err(corrupt)? else {
            return Ok(None);
        };
        let answer =
            session.execute_unpaged(&self.read_record, (number,)).await.map_err(unavailable)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        let Some((topic, count)) = rows.maybe_first_row::<(String, i32)>().map_err(corrupt)? else {
            return Err(corrupt(format!("generation {number} is current but not recorded")));
        };
        Ok(Some(GenerationRecord {
            generation: Generation(u32::try_from(number).map_err(corrupt)?),
            topic,
            partitions: PartitionCount::new(u64::try_from(count).map_err(corrupt)?)
                .map_err(corrupt)?,
        }))
    }

    pub(super) async fn begin_first(
        &self,
        session: &Session,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        if let Some(current) = self.pointed_at(session, &self.settle_pointer).await? {
            return Ok(current);
        }
        let number = int(first.generation.0)?;
        // The record before the pointer. A refusal of either says that another process was faster; what is there
        // then is the answer.
        let values = (number, &first.topic, int(first.partitions.get())?);
        outcome(session.execute_unpaged(&self.record, values).await.map_err(unavailable)?)?;
        outcome(session.execute_unpaged(&self.point, (number,)).await.map_err(unavailable)?)?;
        self.pointed_at(session, &self.settle_pointer)
            .await?
            .ok_or_else(|| corrupt("the current generation is gone just after it was set"))
    }
}
