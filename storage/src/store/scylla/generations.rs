//! The generations and the pointer to the one that answers the public, by lightweight transactions only.

use schemas::{Generation, PartitionCount};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::unavailable;
use crate::store::{GenerationRecord, StoreError};

/// The pointer's one row.
const PUBLIC: &str = "public";

pub(super) struct Generations {
    pointer: PreparedStatement,
    read: PreparedStatement,
    create: PreparedStatement,
    point_first: PreparedStatement,
}

impl Generations {
    pub async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let mut pointer = session
            .prepare("SELECT generation FROM current_generation WHERE id = ?")
            .await
            .map_err(unavailable)?;
        pointer.set_consistency(Consistency::LocalSerial);
        let mut read = session
            .prepare("SELECT topic, partition_count FROM generations WHERE generation = ?")
            .await
            .map_err(unavailable)?;
        read.set_consistency(Consistency::LocalSerial);
        let create = "INSERT INTO generations (generation, topic, partition_count) VALUES (?, ?, ?) IF NOT EXISTS";
        let point_first =
            "INSERT INTO current_generation (id, generation) VALUES (?, ?) IF NOT EXISTS";
        Ok(Self {
            pointer,
            read,
            create: session.prepare(create).await.map_err(unavailable)?,
            point_first: session.prepare(point_first).await.map_err(unavailable)?,
        })
    }

    pub async fn current(&self, session: &Session) -> Result<Option<GenerationRecord>, StoreError> {
        let result =
            session.execute_unpaged(&self.pointer, (PUBLIC,)).await.map_err(unavailable)?;
        let rows = result.into_rows_result().map_err(unavailable)?;
        let Some((number,)) = rows.maybe_first_row::<(i32,)>().map_err(unavailable)? else {
            return Ok(None);
        };

        let result = session.execute_unpaged(&self.read, (number,)).await.map_err(unavailable)?;
        let rows = result.into_rows_result().map_err(unavailable)?;
        let row = rows.maybe_first_row::<(String, i32)>().map_err(unavailable)?;
        let corrupt = || {
            StoreError::Corrupt(format!("generation {number} is current but not recorded whole"))
        };
        let (topic, partition_count) = row.ok_or_else(corrupt)?;
        let partitions =
            u64::try_from(partition_count).ok().and_then(|count| PartitionCount::new(count).ok());
        Ok(Some(GenerationRecord {
            generation: Generation(u32::try_from(number).map_err(|_| corrupt())?),
            topic,
            partitions: partitions.ok_or_else(corrupt)?,
        }))
    }

    pub async fn begin_first(
        &self,
        session: &Session,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        if let Some(current) = self.current(session).await? {
            return Ok(current);
        }
        let number = first.generation.0 as i32;
        let record = (number, first.topic.as_str(), first.partitions.get() as i32);
        // Whoever is first writes; what is read afterwards holds for everyone.
        session.execute_unpaged(&self.create, record).await.map_err(unavailable)?;
        session.execute_unpaged(&self.point_first, (PUBLIC, number)).await.map_err(unavailable)?;
        let current = self.current(session).await?;
        current
            .ok_or_else(|| StoreError::Unavailable("the first generation is not there yet".into()))
    }
}
