//! The keys in Redis, as a plain client sees them.

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

    /// Forgets everything, as a disaster would.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL").query_async(&mut self.connection).await?)
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
