//! A plain client of the keys in Redis.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::oracle::Totals;

/// The keys of one Redis.
pub struct Keys {
    connection: redis::aio::MultiplexedConnection,
}

impl Keys {
    /// Connects to the Redis at `url`.
    ///
    /// # Errors
    /// When Redis does not respond.
    pub async fn open(url: &str) -> Result<Self> {
        let client = redis::Client::open(url)?;
        Ok(Self { connection: client.get_multiplexed_async_connection().await? })
    }

    /// Reads the preformatted aggregate of a budget and checks it against the separate count of people.
    ///
    /// # Errors
    /// When a key is missing, or the two differ.
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
            "the count is {count:?}, but the aggregate has {} people",
            totals.people
        );
        Ok(totals)
    }

    /// Deletes all keys.
    ///
    /// # Errors
    /// When Redis does not respond.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL").query_async(&mut self.connection).await?)
    }

    /// Dumps every key with its value, for searching.
    ///
    /// # Errors
    /// When a key cannot be read.
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
