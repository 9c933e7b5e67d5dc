//! Background jobs: rows of one Scylla partition, written by lightweight transactions only.

use schemas::job::{Job, JobId};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use super::session::{
    bigint, corrupt, outcome, prepare_conditional, prepare_idempotent, unavailable,
};
use crate::jobs::JobRows;
use crate::store::{CasOutcome, StoreError};

/// Prepared statements for jobs.
pub(super) struct JobStatements {
    read_all: PreparedStatement,
    read: PreparedStatement,
    insert: PreparedStatement,
    change: PreparedStatement,
    delete: PreparedStatement,
}

impl JobStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            // A quorum includes every acknowledged change, without a Paxos round: every worker reads all jobs each
            // second.
            read_all: prepare_idempotent(
                session,
                "SELECT id, revision, job FROM jobs WHERE queue = 'jobs'",
                Consistency::LocalQuorum,
            )
            .await?,
            read: prepare_idempotent(
                session,
                "SELECT job FROM jobs WHERE queue = 'jobs' AND id = ?",
                Consistency::LocalQuorum,
            )
            .await?,
            insert: prepare_conditional(
                session,
                "INSERT INTO jobs (queue, id, revision, job) VALUES ('jobs', ?, ?, ?) IF NOT EXISTS",
            )
            .await?,
            change: prepare_conditional(
                session,
                "UPDATE jobs SET revision = ?, job = ? WHERE queue = 'jobs' AND id = ? IF revision = ?",
            )
            .await?,
            delete: prepare_conditional(
                session,
                "DELETE FROM jobs WHERE queue = 'jobs' AND id = ? IF revision = ?",
            )
            .await?,
        })
    }

    pub(super) async fn all(&self, session: &Session) -> Result<JobRows, StoreError> {
        // The number of jobs is bounded, so that they fit in one page.
        let response = session.execute_unpaged(&self.read_all, ()).await.map_err(unavailable)?;
        let rows = response.into_rows_result().map_err(corrupt)?;
        // A column without a value makes its job unreadable, and not the list.
        let rows = rows.rows::<(Uuid, Option<i64>, Option<&str>)>().map_err(corrupt)?;
        let rows = rows.map(|row| {
            row.map(|(id, revision, text)| {
                (id, revision.unwrap_or_default().cast_unsigned(), text.unwrap_or_default())
            })
        });
        Ok(JobRows::of(rows.collect::<Result<Vec<_>, _>>().map_err(corrupt)?))
    }

    pub(super) async fn one(
        &self,
        session: &Session,
        id: JobId,
    ) -> Result<Option<Job>, StoreError> {
        let response = session.execute_unpaged(&self.read, (id.0,)).await.map_err(unavailable)?;
        let rows = response.into_rows_result().map_err(corrupt)?;
        let Some((text,)) = rows.maybe_first_row::<(&str,)>().map_err(corrupt)? else {
            return Ok(None);
        };
        let job = Job::from_json(text);
        job.map(Some).ok_or_else(|| corrupt(format!("job {id} is unreadable")))
    }

    pub(super) async fn change(
        &self,
        session: &Session,
        next: &Job,
    ) -> Result<CasOutcome, StoreError> {
        let (id, revision, text) = (next.id.0, bigint(next.revision)?, next.to_json());
        let response = if next.revision == 1 {
            session.execute_unpaged(&self.insert, (id, revision, text)).await
        } else {
            session.execute_unpaged(&self.change, (revision, text, id, revision - 1)).await
        };
        outcome(response.map_err(unavailable)?)
    }

    pub(super) async fn delete(
        &self,
        session: &Session,
        id: JobId,
        revision: u64,
    ) -> Result<CasOutcome, StoreError> {
        let values = (id.0, bigint(revision)?);
        let response = session.execute_unpaged(&self.delete, values).await;
        outcome(response.map_err(unavailable)?)
    }
}
