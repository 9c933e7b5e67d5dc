//! Background jobs: rows of one partition, each of them changed by conditions only.

use schemas::job::{Job, JobId};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use super::session::{
    bigint, corrupt, outcome, prepare_conditional, prepare_repeatable, unavailable,
};
use crate::jobs::JobRows;
use crate::store::{Conditional, StoreError};

pub(super) struct Jobs {
    read_all: PreparedStatement,
    read: PreparedStatement,
    begin: PreparedStatement,
    change: PreparedStatement,
    delete: PreparedStatement,
}

impl Jobs {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            // A quorum has every change that was answered, and costs no round of Paxos: every worker asks all the time.
            read_all: prepare_repeatable(
                session,
                "SELECT id, revision, job FROM jobs WHERE queue = 'jobs'",
                Consistency::LocalQuorum,
            )
            .await?,
            read: prepare_repeatable(
                session,
                "SELECT job FROM jobs WHERE queue = 'jobs' AND id = ?",
                Consistency::LocalQuorum,
            )
            .await?,
            begin: prepare_conditional(
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
        // There are so few of them that one page holds them all.
        let answer = session.execute_unpaged(&self.read_all, ()).await.map_err(unavailable)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        let rows = rows.rows::<(Uuid, i64, &str)>().map_err(corrupt)?;
        let rows = rows.map(|row| row.map(|(id, at, text)| (id, at.cast_unsigned(), text)));
        Ok(JobRows::of(rows.collect::<Result<Vec<_>, _>>().map_err(corrupt)?))
    }

    pub(super) async fn one(
        &self,
        session: &Session,
        id: JobId,
    ) -> Result<Option<Job>, StoreError> {
        let answer = session.execute_unpaged(&self.read, (id.0,)).await.map_err(unavailable)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        let Some((text,)) = rows.maybe_first_row::<(&str,)>().map_err(corrupt)? else {
            return Ok(None);
        };
        let job = Job::from_json(text);
        job.map(Some).ok_or_else(|| corrupt(format!("job {id} cannot be read")))
    }

    pub(super) async fn change(
        &self,
        session: &Session,
        next: &Job,
    ) -> Result<Conditional, StoreError> {
        let (id, revision, text) = (next.id.0, bigint(next.revision)?, next.to_json());
        let answer = if next.revision == 1 {
            session.execute_unpaged(&self.begin, (id, revision, text)).await
        } else {
            session.execute_unpaged(&self.change, (revision, text, id, revision - 1)).await
        };
        outcome(answer.map_err(unavailable)?)
    }

    pub(super) async fn delete(
        &self,
        session: &Session,
        id: JobId,
        revision: u64,
    ) -> Result<Conditional, StoreError> {
        let values = (id.0, bigint(revision)?);
        let answer = session.execute_unpaged(&self.delete, values).await;
        outcome(answer.map_err(unavailable)?)
    }
}
