//! Configures the driver and sends statements.
//!
//! A request has one attempt and a timeout. The driver retries only statements marked as idempotent: reads and person
//! rows. The caller settles a conditional write whose response was lost: a retry by the driver could find its own first
//! attempt applied, and report it as rejected.
//!
//! All requests use `LOCAL_QUORUM` and `LOCAL_SERIAL` in one datacenter. Each datacenter has its own serial order, so
//! all processes of a deployment must use the same one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemas::cql::SCYLLA_KEYSPACE_OPTIONS;
use schemas::{Generation, PartitionId};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy, RetryPolicy};
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::{CqlValue, Row};

use super::SchemaMode;
use crate::store::{CasOutcome, PartitionRef, StoreError};

const SCHEMA_CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval for probing a silent node, whose connection is closed after the timeout below. Otherwise lost packets would
/// let one request after the other time out.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the connection to ScyllaDB or Cassandra.
#[derive(Debug, Clone)]
pub struct ScyllaConfig {
    /// Contact points, as `host:port`; other nodes are discovered.
    pub nodes: Vec<String>,
    /// The keyspace, created if it does not exist.
    pub keyspace: KeyspaceName,
    /// Replicas of each row in the datacenter, for a keyspace that is created.
    pub replication_factor: u32,
    /// The datacenter of all requests; required only if the cluster has several.
    pub datacenter: Option<String>,
    /// Login, if the cluster requires one.
    pub credentials: Option<ScyllaCredentials>,
    /// Timeout of one request.
    pub request_timeout: Duration,
    /// Timeout of connecting, including migrations.
    pub connect_timeout: Duration,
}

/// A login. `Debug` hides the password.
#[derive(Clone)]
pub struct ScyllaCredentials {
    /// Name of the role.
    pub user: String,
    /// Password of the role.
    pub password: String,
}

impl fmt::Debug for ScyllaCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScyllaCredentials({:?}, password hidden)", self.user)
    }
}

/// The name of a keyspace, safe to insert into a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceName(String);

/// A text that is not a valid keyspace name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 48 lower-case letters, digits and underscores, beginning with a letter")]
pub struct KeyspaceFault;

impl FromStr for KeyspaceName {
    type Err = KeyspaceFault;

    fn from_str(text: &str) -> Result<Self, KeyspaceFault> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_with_letter =
            text.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if starts_with_letter && text.len() <= 48 && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyspaceFault)
        }
    }
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Connects to one datacenter and selects the keyspace, which is created if `mode` allows it.
pub(super) async fn open(config: &ScyllaConfig, mode: SchemaMode) -> Result<Session, StoreError> {
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(config.request_timeout))
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .build();
    let mut profile = profile.into_handle();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .connection_timeout(config.request_timeout)
        .keepalive_interval(KEEPALIVE_INTERVAL)
        .keepalive_timeout(KEEPALIVE_TIMEOUT)
        .keyspaces_to_fetch([config.keyspace.to_string()])
        .fetch_full_schema_metadata(false)
        .default_execution_profile_handle(profile.clone());
    if let Some(ScyllaCredentials { user, password }) = &config.credentials {
        builder = builder.user(user, password);
    }
    let session = builder.build().await.map_err(unavailable)?;

    let datacenter = local_datacenter(&session, config.datacenter.as_deref())?;
    let routing = DefaultPolicy::builder().prefer_datacenter(datacenter.clone()).build();
    let local = profile.pointee_to_builder().load_balancing_policy(routing).build();
    profile.map_to_another_profile(local);

    match mode {
        SchemaMode::Migrate => create_keyspace(&session, config, &datacenter).await?,
        SchemaMode::CheckOnly => require_keyspace(&session, config).await?,
    }
    session.use_keyspace(config.keyspace.to_string(), false).await.map_err(unavailable)?;
    Ok(session)
}

async fn require_keyspace(session: &Session, config: &ScyllaConfig) -> Result<(), StoreError> {
    match keyspace_exists(session, &config.keyspace).await? {
        true => Ok(()),
        false => Err(corrupt(format!("there is no keyspace `{}`", config.keyspace))),
    }
}

async fn keyspace_exists(session: &Session, name: &KeyspaceName) -> Result<bool, StoreError> {
    let listed = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    any_row(session, listed, (&name.0,)).await
}

/// Returns the configured datacenter, or the only one of the cluster.
fn local_datacenter(session: &Session, configured: Option<&str>) -> Result<String, StoreError> {
    let cluster = session.get_cluster_state();
    let known: BTreeSet<&str> =
        cluster.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    let list = || known.iter().copied().collect::<Vec<_>>().join(", ");
    match configured {
        Some(name) if known.contains(name) => Ok(name.to_owned()),
        Some(name) => {
            Err(corrupt(format!("the cluster has no datacenter `{name}`; it has {}", list())))
        }
        None => match (known.len(), known.first()) {
            (1, Some(only)) => Ok((*only).to_owned()),
            (0, _) => Err(unavailable("no node reports its datacenter")),
            _ => Err(corrupt(format!("the cluster has the datacenters {}: name one", list()))),
        },
    }
}

async fn create_keyspace(
    session: &Session,
    config: &ScyllaConfig,
    datacenter: &str,
) -> Result<(), StoreError> {
    let keyspace = &config.keyspace;
    if keyspace_exists(session, keyspace).await? {
        return Ok(());
    }
    // Only ScyllaDB has this table. Cassandra rejects unknown options.
    let scylla_only = "SELECT table_name FROM system_schema.tables \
                       WHERE keyspace_name = 'system' AND table_name = ?";
    let is_scylla = any_row(session, scylla_only, ("scylla_local",)).await?;
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{}': {}}}{}",
        datacenter.replace('\'', "''"),
        config.replication_factor,
        if is_scylla { SCYLLA_KEYSPACE_OPTIONS } else { "" },
    );
    change_schema(session, &create).await
}

/// Runs a statement that changes the schema, and waits for schema agreement of all nodes.
pub(super) async fn change_schema(session: &Session, text: &str) -> Result<(), StoreError> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(SCHEMA_CHANGE_TIMEOUT));
    session.query_unpaged(statement, ()).await.map_err(unavailable)?;
    Ok(())
}

/// Whether a query returns any row.
pub(super) async fn any_row(
    session: &Session,
    text: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<bool, StoreError> {
    let found = session.query_unpaged(text, values).await.map_err(unavailable)?;
    Ok(found.into_rows_result().map_err(corrupt)?.rows_num() > 0)
}

/// Prepares an idempotent statement: the driver may retry it on another node.
pub(super) async fn prepare_idempotent(
    session: &Session,
    text: &str,
    consistency: Consistency,
) -> Result<PreparedStatement, StoreError> {
    let mut statement = session.prepare(text).await.map_err(unavailable)?;
    statement.set_consistency(consistency);
    statement.set_is_idempotent(true);
    statement.set_retry_policy(Some(idempotent_retry_policy()));
    // The column metadata of the preparation applies to every response, so responses need not repeat it.
    statement.set_use_cached_result_metadata(true);
    Ok(statement)
}

/// The retry policy of idempotent statements.
pub(super) fn idempotent_retry_policy() -> Arc<dyn RetryPolicy> {
    Arc::new(DefaultRetryPolicy::new())
}

/// Prepares a conditional write. It has one attempt, whose outcome is decoded by [`outcome`].
pub(super) async fn prepare_conditional(
    session: &Session,
    text: &str,
) -> Result<PreparedStatement, StoreError> {
    session.prepare(text).await.map_err(unavailable)
}

/// Decodes the outcome of a conditional write. For a batch, ScyllaDB returns one row for each statement and Cassandra
/// one row. All rows have the same outcome but different columns, so `[applied]` of the first row is looked up by name.
pub(super) fn outcome(response: QueryResult) -> Result<CasOutcome, StoreError> {
    let rows = response.into_rows_result().map_err(unavailable)?;
    let index = rows.column_specs().get_by_name("[applied]").map(|(index, _)| index);
    let first: Option<Row> = rows.maybe_first_row().map_err(unavailable)?;
    let applied = index.and_then(|index| first?.columns.into_iter().nth(index).flatten());
    match applied {
        Some(CqlValue::Boolean(true)) => Ok(CasOutcome::Applied),
        Some(CqlValue::Boolean(false)) => Ok(CasOutcome::Refused),
        _ => Err(unavailable("the response to a conditional write has no `[applied]`")),
    }
}

/// Creates the error of a failed request, whose outcome may be unknown.
pub(super) fn unavailable(reason: impl ToString) -> StoreError {
    StoreError::Unavailable(reason.to_string())
}

/// Creates the error of an invalid response.
pub(super) fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt(reason.to_string())
}

/// Converts an unsigned number to CQL's `bigint`.
pub(super) fn bigint(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| corrupt(format!("{number} is too large to be stored")))
}

/// Converts a `bigint` to an unsigned number.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupt(format!("{number} is negative")))
}

/// Converts an unsigned number to CQL's `int`.
pub(super) fn int(number: u32) -> Result<i32, StoreError> {
    i32::try_from(number).map_err(|_| corrupt(format!("{number} is too large to be stored")))
}

/// Returns the partition key of the tables that have a row for each partition of a log.
pub(super) fn partition_key(partition: PartitionRef) -> Result<(i32, i32), StoreError> {
    let PartitionRef { generation: Generation(generation), partition: PartitionId(number) } =
        partition;
    Ok((int(generation)?, int(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_need_for_quotes_are_keyspace_names() {
        for good in ["a", "allocator", "allocator_2", &"x".repeat(48)] {
            assert_eq!(good.parse::<KeyspaceName>().map(|name| name.to_string()), Ok(good.into()));
        }
        for bad in ["", "2a", "_a", "Allocator", "a-b", "a;b", "a b", "ä", &"x".repeat(49)] {
            assert_eq!(bad.parse::<KeyspaceName>(), Err(KeyspaceFault), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let login = ScyllaCredentials { user: "app".into(), password: "secret-word".into() };
        assert!(!format!("{login:?}").contains("secret-word"));
    }
}
