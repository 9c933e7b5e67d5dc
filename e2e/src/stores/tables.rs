//! A plain client of the tables in Cassandra or ScyllaDB.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::oracle::{Tally, Totals};
use crate::record::PersonState;

/// The committed state of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartition {
    /// Offset of the next record to fold.
    pub position: u64,
    /// Position up to which person rows are written.
    pub rows_position: u64,
    /// Epoch of the latest claim.
    pub epoch: u64,
    /// Outcomes of the records.
    pub tally: Tally,
}

/// The tables of one keyspace.
pub struct Tables {
    session: Session,
    keyspace: String,
    /// The active generation when the tables were opened.
    generation: i32,
}

impl Tables {
    /// Connects to a keyspace at `nodes`.
    ///
    /// # Errors
    /// When no node responds.
    pub async fn open(nodes: &str, keyspace: &str) -> Result<Self> {
        let session = session(nodes).await?;
        let generation = active_generation(&session, keyspace).await?;
        Ok(Self { session, keyspace: keyspace.to_owned(), generation })
    }

    /// Reads another generation instead of the active one.
    #[must_use]
    pub fn with_generation(self, generation: i32) -> Self {
        Self { generation, ..self }
    }

    /// The committed state of a partition, if it was ever claimed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn partition(&self, partition: u32) -> Result<Option<StoredPartition>> {
        type Columns =
            (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let query = format!(
            "SELECT position, state_position, epoch, applied, duplicates, dead_lettered FROM {}.totals \
             WHERE generation = {} AND partition = ? LIMIT 1",
            self.keyspace, self.generation
        );
        let rows =
            self.session.query_unpaged(query, (partition as i32,)).await?.into_rows_result()?;
        let Some(row) = rows.maybe_first_row::<Columns>()? else { return Ok(None) };
        let count = |value: Option<i64>| value.unwrap_or_default().max(0) as u64;
        Ok(Some(StoredPartition {
            position: count(row.0),
            rows_position: count(row.1),
            epoch: count(row.2),
            tally: Tally {
                applied: count(row.3),
                duplicates: count(row.4),
                dead_lettered: count(row.5),
            },
        }))
    }

    /// The committed position of each claimed partition, in one read.
    ///
    /// # Errors
    /// When the positions cannot be read.
    pub async fn positions(&self, partitions: u32) -> Result<HashMap<u32, u64>> {
        let all: Vec<i32> = (0..partitions as i32).collect();
        let query = format!(
            "SELECT DISTINCT partition, position FROM {}.totals WHERE generation = {} AND partition IN ?",
            self.keyspace, self.generation
        );
        let rows = self.session.query_unpaged(query, (all,)).await?.into_rows_result()?;
        let mut positions = HashMap::new();
        for row in rows.rows::<(i32, Option<i64>)>()? {
            let (partition, position) = row?;
            positions.insert(partition as u32, position.unwrap_or_default().max(0) as u64);
        }
        Ok(positions)
    }

    /// People and sums of a budget over all partitions.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn sums(&self, budget: &str, partitions: u32) -> Result<(u64, Vec<u64>)> {
        let totals = self.totals(budget, partitions).await?;
        Ok((totals.people, totals.basis_points))
    }

    /// The committed totals of a budget over all partitions. No categories before the first submission.
    ///
    /// # Errors
    /// When a row cannot be read or is inconsistent.
    pub async fn totals(&self, budget: &str, partitions: u32) -> Result<Totals> {
        type Columns = (Option<i64>, Option<Vec<i64>>, Option<Vec<u8>>);
        let query = format!(
            "SELECT people, sums, distribution FROM {}.totals \
             WHERE generation = {} AND partition = ? AND budget = ?",
            self.keyspace, self.generation
        );
        let mut totals = Totals::from_allocations(0, []);
        for partition in 0..partitions {
            let rows = self
                .session
                .query_unpaged(&*query, (partition as i32, budget))
                .await?
                .into_rows_result()?;
            if let Some((people, sums, distribution)) = rows.maybe_first_row::<Columns>()? {
                let part = parse_totals(people, sums, distribution)
                    .with_context(|| format!("the row of {budget} in partition {partition}"))?;
                add(&mut totals, part)?;
            }
        }
        Ok(totals)
    }

    /// The current allocation of each person who counts in a budget, by person key.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn people(&self, budget: &str) -> Result<HashMap<Vec<u8>, Vec<u32>>> {
        let query = format!("SELECT generation, person, state FROM {}.allocations", self.keyspace);
        let rows = self.session.query_unpaged(query, ()).await?.into_rows_result()?;
        let mut people = HashMap::new();
        for row in rows.rows::<(i32, Vec<u8>, Vec<u8>)>()? {
            let (generation, person, state) = row?;
            if generation != self.generation {
                continue;
            }
            let state = PersonState::decode(&state[..])?;
            if state.budget == budget && !state.basis_points.is_empty() && !state.annulled {
                people.insert(person, state.basis_points);
            }
        }
        Ok(people)
    }

    /// Swaps the totals of the first two categories in one partition: wrong, but consistent in itself.
    ///
    /// # Errors
    /// When the two are equal, or cannot be written.
    pub async fn swap_categories(&self, budget: &str, partition: u32) -> Result<()> {
        let table = format!("{}.totals", self.keyspace);
        let row = format!("generation = {} AND partition = ? AND budget = ?", self.generation);
        let query = format!("SELECT sums, distribution FROM {table} WHERE {row}");
        let key = (partition as i32, budget);
        let rows = self.session.query_unpaged(query, key).await?.into_rows_result()?;
        let (mut sums, distribution) = rows.single_row::<(Vec<i64>, Vec<u8>)>()?;
        let mut counts = Distribution::decode(&distribution[..])?.people_by_percent;
        ensure!(sums.len() >= 2 && sums[0] != sums[1], "the sums are equal: {sums:?}");
        sums.swap(0, 1);
        let (first, others) = counts.split_at_mut(101);
        first.swap_with_slice(&mut others[..101]);
        let distribution = Distribution { people_by_percent: counts }.encode_to_vec();
        let update = format!("UPDATE {table} SET sums = ?, distribution = ? WHERE {row}");
        let values = (sums, distribution, partition as i32, budget);
        self.session.query_unpaged(update, values).await?;
        Ok(())
    }

    /// Records a migration, as a release that has it does.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn record_migration(&self, version: i32) -> Result<()> {
        let insert = format!(
            "INSERT INTO {}.schema_migrations (id, version, name) VALUES ('schema', ?, 'later') IF NOT EXISTS",
            self.keyspace
        );
        self.session.query_unpaged(insert, (version,)).await?;
        Ok(())
    }

    /// Deletes the record of a migration.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn forget_migration(&self, version: i32) -> Result<()> {
        let delete = format!(
            "DELETE FROM {}.schema_migrations WHERE id = 'schema' AND version = ? IF EXISTS",
            self.keyspace
        );
        self.session.query_unpaged(delete, (version,)).await?;
        Ok(())
    }

    /// Deletes all rows of a table.
    ///
    /// # Errors
    /// When the table cannot be truncated.
    pub async fn truncate(&self, table: &str) -> Result<()> {
        self.session.query_unpaged(format!("TRUNCATE {}.{table}", self.keyspace), ()).await?;
        Ok(())
    }

    /// Deletes every third person row of the generation, like a store that lost acknowledged writes. Returns how many.
    ///
    /// The deletion has the timestamp of the deleted write, so a later write of the same row still wins.
    ///
    /// # Errors
    /// When the rows cannot be read or deleted.
    pub async fn lose_people(&self) -> Result<usize> {
        let table = format!("{}.allocations", self.keyspace);
        let query =
            format!("SELECT generation, partition, bucket, person, WRITETIME(state) FROM {table}");
        let rows = self.session.query_unpaged(query, ()).await?.into_rows_result()?;
        let delete = self
            .session
            .prepare(format!(
                "DELETE FROM {table} USING TIMESTAMP ? \
                 WHERE generation = ? AND partition = ? AND bucket = ? AND person = ?"
            ))
            .await?;
        let mut lost = 0;
        let of_generation = rows
            .rows::<(i32, i32, i32, Vec<u8>, i64)>()?
            .filter(|row| row.as_ref().map_or(true, |row| row.0 == self.generation));
        for row in of_generation.step_by(3) {
            let (generation, partition, bucket, person, written) = row?;
            let values = (written, generation, partition, bucket, person);
            self.session.execute_unpaged(&delete, values).await?;
            lost += 1;
        }
        Ok(lost)
    }

    /// Deletes all rows of all tables except the schema version.
    ///
    /// # Errors
    /// When a table cannot be truncated.
    pub async fn truncate_all(&self) -> Result<()> {
        for table in self.table_names().await? {
            if table != "schema_migrations" {
                self.truncate(&table).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement of an operator, whose tables are those of this keyspace, and returns the number of rows.
    ///
    /// # Errors
    /// When the server refuses the statement.
    pub async fn count_rows(&self, statement: &str) -> Result<usize> {
        let statement = statement.replace(" FROM ", &format!(" FROM {}.", self.keyspace));
        let rows = self.session.query_unpaged(statement, ()).await?.into_rows_result()?;
        Ok(rows.rows_num())
    }

    async fn table_names(&self) -> Result<Vec<String>> {
        let tables = self
            .session
            .query_unpaged(
                "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?",
                (&self.keyspace,),
            )
            .await?
            .into_rows_result()?;
        tables.rows::<(String,)>()?.map(|row| Ok(row?.0)).collect()
    }

    /// Dumps every row of every table, for searching.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn everything(&self) -> Result<String> {
        let mut text = String::new();
        for table in self.table_names().await? {
            let query = format!("SELECT * FROM {}.{table}", self.keyspace);
            let rows = self.session.query_unpaged(query, ()).await?.into_rows_result()?;
            for row in rows.rows::<scylla::value::Row>()? {
                for column in row?.columns.into_iter().flatten() {
                    match column {
                        scylla::value::CqlValue::Blob(bytes) => {
                            text.push_str(&String::from_utf8_lossy(&bytes))
                        }
                        other => text.push_str(&format!("{other:?}")),
                    }
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }
}

/// Reads the active generation from the generation registry. Without a registry it is 1.
async fn active_generation(session: &Session, keyspace: &str) -> Result<i32> {
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'roster'";
    let table = session.query_unpaged(tables, (keyspace,)).await?.into_rows_result()?;
    if table.maybe_first_row::<(String,)>()?.is_none() {
        return Ok(1);
    }
    let query = format!("SELECT roster FROM {keyspace}.roster WHERE id = 'roster'");
    let rows = session.query_unpaged(query, ()).await?.into_rows_result()?;
    let Some((registry,)) = rows.maybe_first_row::<(String,)>()? else { return Ok(1) };
    let registry: serde_json::Value = serde_json::from_str(&registry)?;
    let generation = registry["current"]["generation"].as_i64().context("no active generation")?;
    Ok(generation as i32)
}

/// The `distribution` column, as `distribution.proto` documents it.
#[derive(Clone, PartialEq, Eq, Message)]
struct Distribution {
    /// Number of people for each whole percent, 0 to 100, category after category.
    #[prost(uint64, repeated, tag = "1")]
    people_by_percent: Vec<u64>,
}

/// Parses the columns of a budget's row.
fn parse_totals(
    people: Option<i64>,
    sums: Option<Vec<i64>>,
    distribution: Option<Vec<u8>>,
) -> Result<Totals> {
    let sums = sums.unwrap_or_default();
    let counts = Distribution::decode(&distribution.unwrap_or_default()[..])?.people_by_percent;
    ensure!(counts.len() == sums.len() * 101, "{} sums, but {} counts", sums.len(), counts.len());
    Ok(Totals {
        people: people.unwrap_or_default().try_into()?,
        basis_points: sums.into_iter().map(u64::try_from).collect::<Result<_, _>>()?,
        distribution: counts.chunks(101).map(<[u64]>::to_vec).collect(),
    })
}

/// Adds a partition's totals. A partition without submissions has no categories.
fn add(totals: &mut Totals, part: Totals) -> Result<()> {
    if totals.basis_points.is_empty() {
        let people = totals.people + part.people;
        *totals = Totals { people, ..part };
        return Ok(());
    }
    let (expected, found) = (totals.basis_points.len(), part.basis_points.len());
    ensure!(
        found == 0 || found == expected,
        "{found} categories in one partition, {expected} in another"
    );
    totals.people += part.people;
    add_each(&mut totals.basis_points, &part.basis_points);
    for (counts, part) in totals.distribution.iter_mut().zip(&part.distribution) {
        add_each(counts, part);
    }
    Ok(())
}

fn add_each(sums: &mut [u64], more: &[u64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

async fn session(nodes: &str) -> Result<Session> {
    SessionBuilder::new()
        .known_nodes(nodes.split(',').map(str::trim))
        .connection_timeout(Duration::from_secs(10))
        .build()
        .await
        .with_context(|| format!("no CQL server at {nodes}"))
}

/// Drops the keyspaces whose name satisfies `unwanted`.
///
/// # Errors
/// When no node responds.
pub async fn drop_keyspaces(nodes: &str, unwanted: impl Fn(&str) -> bool) -> Result<()> {
    let session = session(nodes).await?;
    let rows = session
        .query_unpaged("SELECT keyspace_name FROM system_schema.keyspaces", ())
        .await?
        .into_rows_result()?;
    for row in rows.rows::<(String,)>()? {
        let (keyspace,) = row?;
        if unwanted(&keyspace) {
            session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes the column of two categories: field 1, packed, one byte per count.
    fn column(counts: &[u8]) -> Vec<u8> {
        assert_eq!(counts.len(), 202);
        [&[0x0a, 0xca, 0x01][..], counts].concat()
    }

    fn totals_of_one_person(first: u8, second: u8) -> Totals {
        let mut counts = [0; 202];
        counts[usize::from(first)] = 1;
        counts[101 + usize::from(second)] = 1;
        let sums = [first, second].map(|percent| i64::from(percent) * 100);
        parse_totals(Some(1), Some(sums.to_vec()), Some(column(&counts))).unwrap()
    }

    #[test]
    fn rows_parse_into_totals_and_add_up() {
        assert_eq!(totals_of_one_person(100, 0), Totals::from_allocations(2, [&vec![10_000, 0]]));
        let mut totals = Totals::from_allocations(0, []);
        let empty = parse_totals(Some(0), Some(Vec::new()), Some(Vec::new())).unwrap();
        for part in
            [empty.clone(), totals_of_one_person(100, 0), empty, totals_of_one_person(40, 60)]
        {
            add(&mut totals, part).unwrap();
        }
        assert_eq!(totals, Totals::from_allocations(2, [&vec![10_000, 0], &vec![4_000, 6_000]]));
    }

    #[test]
    fn inconsistent_columns_and_rows_are_errors() {
        assert!(parse_totals(Some(1), Some(vec![10_000]), Some(column(&[0; 202]))).is_err());
        assert!(parse_totals(Some(-1), Some(vec![0, 0]), Some(column(&[0; 202]))).is_err());
        assert!(parse_totals(Some(1), Some(vec![10_000, 0]), Some(vec![0xff])).is_err());
        let mut totals = totals_of_one_person(100, 0);
        assert!(add(&mut totals, Totals::from_allocations(3, [&vec![10_000, 0, 0]])).is_err());
    }
}
