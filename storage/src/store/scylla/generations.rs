//! Which generations there are, in one row that is changed by conditions only; and what is said of those that are
//! folded beside the one that answers.

use schemas::{Generation, PartitionCount, PartitionReport, Roster};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::session::{
    bigint, corrupt, int, outcome, prepare_conditional, prepare_repeatable, unavailable,
};
use crate::store::{Conditional, PartitionRef, StoreError};

pub(super) struct Generations {
    read: PreparedStatement,
    begin: PreparedStatement,
    change: PreparedStatement,
    write_report: PreparedStatement,
    read_reports: PreparedStatement,
}

impl Generations {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            // A quorum has every change that was answered, and costs no round of Paxos: all readers ask for this row.
            read: prepare_repeatable(
                session,
                "SELECT roster FROM roster WHERE id = 'roster'",
                Consistency::LocalQuorum,
            )
            .await?,
            begin: prepare_conditional(
                session,
                "INSERT INTO roster (id, revision, roster) VALUES ('roster', ?, ?) IF NOT EXISTS",
            )
            .await?,
            change: prepare_conditional(
                session,
                "UPDATE roster SET revision = ?, roster = ? WHERE id = 'roster' IF revision = ?",
            )
            .await?,
            write_report: prepare_repeatable(
                session,
                "INSERT INTO partition_reports (generation, partition, report) VALUES (?, ?, ?)",
                Consistency::LocalQuorum,
            )
            .await?,
            read_reports: prepare_repeatable(
                session,
                "SELECT partition, report FROM partition_reports WHERE generation = ?",
                Consistency::LocalQuorum,
            )
            .await?,
        })
    }

    pub(super) async fn roster(&self, session: &Session) -> Result<Option<Roster>, StoreError> {
        let answer = session.execute_unpaged(&self.read, ()).await.map_err(unavailable)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        let Some((text,)) = rows.maybe_first_row::<(&str,)>().map_err(corrupt)? else {
            return Ok(None);
        };
        let roster = Roster::from_json(text);
        roster.map(Some).ok_or_else(|| corrupt("the roster of generations is none"))
    }

    pub(super) async fn change(
        &self,
        session: &Session,
        next: &Roster,
    ) -> Result<Conditional, StoreError> {
        let (revision, text) = (bigint(next.revision)?, next.to_json());
        let answer = if next.revision == 1 {
            session.execute_unpaged(&self.begin, (revision, text)).await
        } else {
            session.execute_unpaged(&self.change, (revision, text, revision - 1)).await
        };
        outcome(answer.map_err(unavailable)?)
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
        let answer = session.execute_unpaged(&self.read_reports, (int(generation.0)?,)).await;
        let rows = answer.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let mut reports = vec![None; partitions.get() as usize];
        for row in rows.rows::<(i32, &str)>().map_err(corrupt)? {
            let (partition, report) = row.map_err(corrupt)?;
            let place = usize::try_from(partition).ok().and_then(|at| reports.get_mut(at));
            if let Some(place) = place {
                *place = PartitionReport::from_json(report);
            }
        }
        Ok(reports)
    }
}
