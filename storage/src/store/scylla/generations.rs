//! The generation registry, one row written by lightweight transactions only, and progress reports of shadow
//! partitions.

use schemas::{Generation, GenerationRegistry, PartitionCount, PartitionReport};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::session::{
    bigint, corrupt, int, outcome, prepare_conditional, prepare_idempotent, unavailable,
};
use crate::store::{CasOutcome, PartitionRef, StoreError};

/// Prepared statements for generations.
pub(super) struct GenerationStatements {
    read: PreparedStatement,
    insert: PreparedStatement,
    change: PreparedStatement,
    write_report: PreparedStatement,
    read_reports: PreparedStatement,
}

impl GenerationStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            // A quorum includes every acknowledged change, without a Paxos round: all readers read this row.
            read: prepare_idempotent(
                session,
                "SELECT roster FROM roster WHERE id = 'roster'",
                Consistency::LocalQuorum,
            )
            .await?,
            insert: prepare_conditional(
                session,
                "INSERT INTO roster (id, revision, roster) VALUES ('roster', ?, ?) IF NOT EXISTS",
            )
            .await?,
            change: prepare_conditional(
                session,
                "UPDATE roster SET revision = ?, roster = ? WHERE id = 'roster' IF revision = ?",
            )
            .await?,
            write_report: prepare_idempotent(
                session,
                "INSERT INTO partition_reports (generation, partition, report) VALUES (?, ?, ?)",
                Consistency::LocalQuorum,
            )
            .await?,
            read_reports: prepare_idempotent(
                session,
                "SELECT partition, report FROM partition_reports WHERE generation = ?",
                Consistency::LocalQuorum,
            )
            .await?,
        })
    }

    pub(super) async fn registry(
        &self,
        session: &Session,
    ) -> Result<Option<GenerationRegistry>, StoreError> {
        let response = session.execute_unpaged(&self.read, ()).await.map_err(unavailable)?;
        let rows = response.into_rows_result().map_err(corrupt)?;
        let Some((text,)) = rows.maybe_first_row::<(&str,)>().map_err(corrupt)? else {
            return Ok(None);
        };
        let registry = GenerationRegistry::from_json(text);
        registry.map(Some).ok_or_else(|| corrupt("the generation registry is damaged"))
    }

    pub(super) async fn change(
        &self,
        session: &Session,
        next: &GenerationRegistry,
    ) -> Result<CasOutcome, StoreError> {
        let (revision, text) = (bigint(next.revision)?, next.to_json());
        let response = if next.revision == 1 {
            session.execute_unpaged(&self.insert, (revision, text)).await
        } else {
            session.execute_unpaged(&self.change, (revision, text, revision - 1)).await
        };
        outcome(response.map_err(unavailable)?)
    }

    pub(super) async fn write_report(
        &self,
        session: &Session,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        let (generation, number) = (int(partition.generation.0)?, int(partition.partition.0)?);
        let values = (generation, number, report.to_json());
        session.execute_unpaged(&self.write_report, values).await.map_err(unavailable)?;
        Ok(())
    }

    pub(super) async fn reports(
        &self,
        session: &Session,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let response = session.execute_unpaged(&self.read_reports, (int(generation.0)?,)).await;
        let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let mut reports = vec![None; partitions.get() as usize];
        for row in rows.rows::<(i32, &str)>().map_err(corrupt)? {
            let (partition, report) = row.map_err(corrupt)?;
            let slot = usize::try_from(partition).ok().and_then(|index| reports.get_mut(index));
            if let Some(slot) = slot {
                *slot = PartitionReport::from_json(report);
            }
        }
        Ok(reports)
    }
}
