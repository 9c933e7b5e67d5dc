//! Background jobs: one row each.

use rusqlite::{Connection, OptionalExtension};
use schemas::job::{Job, JobId};
use uuid::Uuid;

use super::{Fault, outcome};
use crate::jobs::JobRows;
use crate::store::CasOutcome;

pub(super) fn all(connection: &Connection) -> Result<JobRows, Fault> {
    let mut select = connection.prepare("SELECT id, revision, job FROM jobs")?;
    let rows = select.query_map([], |row| {
        let revision: i64 = row.get(1)?;
        // A text that is not one makes its job unreadable, and not the list.
        let text = std::str::from_utf8(row.get_ref(2)?.as_bytes()?).unwrap_or_default().to_owned();
        Ok((Uuid::from_bytes(row.get(0)?), revision.cast_unsigned(), text))
    })?;
    Ok(JobRows::of(rows.collect::<Result<Vec<_>, _>>()?))
}

pub(super) fn one(connection: &Connection, id: JobId) -> Result<Option<Job>, Fault> {
    let text: Option<String> = connection
        .query_row("SELECT job FROM jobs WHERE id = ?1", [key(id)], |row| row.get(0))
        .optional()?;
    let damage = || Fault::Damage(format!("job {id} is unreadable"));
    text.map(|text| Job::from_json(&text).ok_or_else(damage)).transpose()
}

pub(super) fn change(connection: &Connection, next: &Job) -> Result<CasOutcome, Fault> {
    let values = (key(next.id), next.revision.cast_signed(), next.to_json());
    let changed = if next.revision == 1 {
        connection.execute(
            "INSERT INTO jobs (id, revision, job) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            values,
        )?
    } else {
        connection.execute(
            "UPDATE jobs SET revision = ?2, job = ?3 WHERE id = ?1 AND revision = ?2 - 1",
            values,
        )?
    };
    Ok(outcome(changed))
}

pub(super) fn delete(
    connection: &Connection,
    id: JobId,
    revision: u64,
) -> Result<CasOutcome, Fault> {
    let values = (key(id), revision.cast_signed());
    let deleted = connection.execute("DELETE FROM jobs WHERE id = ?1 AND revision = ?2", values)?;
    Ok(outcome(deleted))
}

fn key(id: JobId) -> [u8; 16] {
    id.0.into_bytes()
}
