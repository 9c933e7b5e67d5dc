//! The rows in Cassandra or ScyllaDB and the keys in Redis, as plain clients see them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use prost::Message;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::Value;

use crate::oracle::{Tally, Totals};
use crate::record::PersonState;

/// What is committed of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartition {
    /// The next record to fold.
    pub position: u64,
    /// People's rows are in the table as of here.
    pub state_position: u64,
    /// The latest claim.
    pub epoch: u64,
    /// What became of the records.
    pub tally: Tally,
}

/// The tables of one keyspace.
pub struct Tables {
    session: Session,
    keyspace: String,
}

impl Tables {
    /// Opens a keyspace at `nodes`.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn open(nodes: &str, keyspace: &str) -> Result<Self> {
        Ok(Self { session: session(nodes).await?, keyspace: keyspace.to_owned() })
    }

    /// What is committed of a partition, if it was ever claimed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn partition(&self, partition: u32) -> Result<Option<StoredPartition>> {
        type Columns =
            (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let query = format!(
            "SELECT position, state_position, epoch, applied, duplicates, dead_lettered FROM {}.totals \
             WHERE generation = 1 AND partition = ? LIMIT 1",
            self.keyspace
        );
        let rows =
            self.session.query_unpaged(query, (partition as i32,)).await?.into_rows_result()?;
        let Some(row) = rows.maybe_first_row::<Columns>()? else { return Ok(None) };
        let count = |value: Option<i64>| value.unwrap_or_default().max(0) as u64;
        Ok(Some(StoredPartition {
            position: count(row.0),
            state_position: count(row.1),
            epoch: count(row.2),
            tally: Tally {
                applied: count(row.3),
                duplicates: count(row.4),
                dead_lettered: count(row.5),
            },
        }))
    }

    /// The committed position of each partition that was ever claimed, in one read.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn positions(&self, partitions: u32) -> Result<HashMap<u32, u64>> {
        let all: Vec<i32> = (0..partitions as i32).collect();
        let query = format!(
            "SELECT DISTINCT partition, position FROM {}.totals WHERE generation = 1 AND partition IN ?",
            self.keyspace
        );
        let rows = self.session.query_unpaged(query, (all,)).await?.into_rows_result()?;
        let mut positions = HashMap::new();
        for row in rows.rows::<(i32, Option<i64>)>()? {
            let (partition, position) = row?;
            positions.insert(partition as u32, position.unwrap_or_default().max(0) as u64);
        }
        Ok(positions)
    }

    /// People and sums of a budget, added up over partitions.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn sums(&self, budget: &str, partitions: u32) -> Result<(u64, Vec<u64>)> {
        let query = format!(
            "SELECT people, sums FROM {}.totals WHERE generation = 1 AND partition = ? AND budget = ?",
            self.keyspace
        );
        let (mut people, mut sums) = (0, Vec::new());
        for partition in 0..partitions {
            let rows = self
                .session
                .query_unpaged(&*query, (partition as i32, budget))
                .await?
                .into_rows_result()?;
            for row in rows.rows::<(Option<i64>, Option<Vec<i64>>)>()? {
                let (part_people, part_sums) = row?;
                people += part_people.unwrap_or_default() as u64;
                let part_sums = part_sums.unwrap_or_default();
                sums.resize(sums.len().max(part_sums.len()), 0);
                for (sum, part) in sums.iter_mut().zip(part_sums) {
                    *sum += part as u64;
                }
            }
        }
        Ok((people, sums))
    }

    /// What counts of each person of a budget, by key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn people(&self, budget: &str) -> Result<HashMap<Vec<u8>, Vec<u32>>> {
        let query = format!("SELECT person, state FROM {}.allocations", self.keyspace);
        let rows = self.session.query_unpaged(query, ()).await?.into_rows_result()?;
        let mut people = HashMap::new();
        for row in rows.rows::<(Vec<u8>, Vec<u8>)>()? {
            let (person, state) = row?;
            let state = PersonState::decode(&state[..])?;
            if state.budget == budget && !state.basis_points.is_empty() {
                people.insert(person, state.basis_points);
            }
        }
        Ok(people)
    }

    /// Empties a table, as a disaster would.
    ///
    /// # Errors
    /// When it cannot be emptied.
    pub async fn truncate(&self, table: &str) -> Result<()> {
        self.session.query_unpaged(format!("TRUNCATE {}.{table}", self.keyspace), ()).await?;
        Ok(())
    }

    /// The bytes of every row of every table, to search in.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn everything(&self) -> Result<String> {
        let tables = self
            .session
            .query_unpaged(
                "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?",
                (&self.keyspace,),
            )
            .await?
            .into_rows_result()?;
        let mut text = String::new();
        for table in tables.rows::<(String,)>()? {
            let query = format!("SELECT * FROM {}.{}", self.keyspace, table?.0);
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

async fn session(nodes: &str) -> Result<Session> {
    SessionBuilder::new()
        .known_nodes(nodes.split(',').map(str::trim))
        .connection_timeout(Duration::from_secs(10))
        .build()
        .await
        .with_context(|| format!("no CQL server at {nodes}"))
}

/// Drops the keyspaces for which `unwanted` says so.
///
/// # Errors
/// When no node answers.
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

/// The keys of one Redis.
pub struct Keys {
    connection: redis::aio::MultiplexedConnection,
}

impl Keys {
    /// Connects to the Redis at `url`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn open(url: &str) -> Result<Self> {
        let client = redis::Client::open(url)?;
        Ok(Self { connection: client.get_multiplexed_async_connection().await? })
    }

    /// The preformatted aggregate of a budget, and the count of people beside it.
    ///
    /// # Errors
    /// When they are not there, or contradict each other.
    pub async fn aggregate(&mut self, budget: &str) -> Result<Totals> {
        let (json, count): (Option<String>, Option<u64>) = redis::cmd("MGET")
            .arg(format!("aggregate_allocations_v2:{{{budget}}}"))
            .arg(format!("aggregate_total_submissions:{{{budget}}}"))
            .query_async(&mut self.connection)
            .await?;
        let json: Value = serde_json::from_str(&json.context("no aggregate in Redis")?)?;
        let list = |value: &Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
        let whole = |value: &Value| value.as_u64().context("not a whole number");
        let categories = list(&json["categories"]);
        let totals = Totals {
            people: whole(&json["people"])?,
            basis_points: categories
                .iter()
                .map(|c| whole(&c["basis_points"]))
                .collect::<Result<_>>()?,
            distribution: categories
                .iter()
                .map(|c| list(&c["people_by_percent"]).iter().map(whole).collect())
                .collect::<Result<_>>()?,
        };
        anyhow::ensure!(
            count == Some(totals.people),
            "{count:?} beside an aggregate of {} people",
            totals.people
        );
        Ok(totals)
    }

    /// Every key with its value, to search in.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn everything(&mut self) -> Result<String> {
        let keys: Vec<Vec<u8>> =
            redis::cmd("KEYS").arg("*").query_async(&mut self.connection).await?;
        let mut text = String::new();
        for key in keys {
            let dump: Vec<u8> =
                redis::cmd("DUMP").arg(&key).query_async(&mut self.connection).await?;
            for bytes in [&key, &dump] {
                text.push_str(&String::from_utf8_lossy(bytes));
                text.push('\n');
            }
        }
        Ok(text)
    }
}
