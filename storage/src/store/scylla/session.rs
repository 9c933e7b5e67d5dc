//! How the driver is set up, and how every statement is sent.
//!
//! A request has one try and a time limit. The driver repeats only what is marked idempotent, and only where a
//! repetition can change nothing: reads, and people's rows. A conditional write that got no answer is the caller's to
//! settle; a repetition by the driver would report its own first try as a refusal.
//!
//! Everything happens at `LOCAL_QUORUM` and `LOCAL_SERIAL` in one datacenter. Two datacenters that both write would
//! each have a serial order of their own: all owners of a deployment must name the same one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemas::cql::SCYLLA_KEYSPACE_OPTIONS;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy, RetryPolicy};
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::{CqlValue, Row};

use super::Schema;
use crate::store::{Conditional, StoreError};

/// How long a change of the schema may take.
const SCHEMA_CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A node that says nothing is asked whether it lives, and its connection given up if it does not answer: bytes that
/// a network swallows must not make one request after the other time out.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach ScyllaDB or Cassandra.
#[derive(Debug, Clone)]
pub struct ScyllaConfig {
    /// Some of the nodes, as `host:port`; the others are learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace; it is made if it is absent.
    pub keyspace: KeyspaceName,
    /// Copies of every row in the datacenter, for a keyspace that is made.
    pub replication_factor: u32,
    /// The datacenter that everything happens in; needed only where the cluster has several.
    pub datacenter: Option<String>,
    /// Who logs in, where the cluster asks for it.
    pub credentials: Option<ScyllaCredentials>,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long connecting may take, migrations included.
    pub connect_timeout: Duration,
}

/// Who logs in. Shown without the password.
#[derive(Clone)]
pub struct ScyllaCredentials {
    /// The role's name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for ScyllaCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScyllaCredentials({:?}, password hidden)", self.user)
    }
}

/// A keyspace's name, safe to stand in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceName(String);

/// A text that is no keyspace's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 48 lower-case letters, digits and underscores, beginning with a letter")]
pub struct KeyspaceFault;

impl FromStr for KeyspaceName {
    type Err = KeyspaceFault;

    fn from_str(text: &str) -> Result<Self, KeyspaceFault> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if begins_well && text.len() <= 48 && text.bytes().all(plain) {
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

/// Connects, keeps to one datacenter and uses the keyspace, which is made if it is absent and may be made.
pub(super) async fn open(config: &ScyllaConfig, schema: Schema) -> Result<Session, StoreError> {
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

    match schema {
        Schema::BringUpToDate => create_keyspace(&session, config, &datacenter).await?,
        Schema::LeaveAsItIs => require_keyspace(&session, config).await?,
    }
    session.use_keyspace(config.keyspace.to_string(), false).await.map_err(unavailable)?;
    Ok(session)
}

async fn require_keyspace(session: &Session, config: &ScyllaConfig) -> Result<(), StoreError> {
    let keyspace = &config.keyspace;
    let listed = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    if any_row(session, listed, (keyspace.to_string(),)).await? {
        return Ok(());
    }
    Err(corrupt(format!("there is no keyspace `{keyspace}`")))
}

/// The datacenter that was asked for, or the only one there is.
fn local_datacenter(session: &Session, asked_for: Option<&str>) -> Result<String, StoreError> {
    let cluster = session.get_cluster_state();
    let known: BTreeSet<&str> =
        cluster.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    let list = || known.iter().copied().collect::<Vec<_>>().join(", ");
    match asked_for {
        Some(name) if known.contains(name) => Ok(name.to_owned()),
        Some(name) => {
            Err(corrupt(format!("the cluster has no datacenter `{name}`; it has {}", list())))
        }
        None => match (known.len(), known.first()) {
            (1, Some(only)) => Ok((*only).to_owned()),
            (0, _) => Err(unavailable("no node says which datacenter it is in")),
            _ => Err(corrupt(format!("the cluster has the datacenters {}: name one", list()))),
        },
    }
}

async fn create_keyspace(
    session: &Session,
    config: &ScyllaConfig,
    datacenter: &str,
) -> Result<(), StoreError> {
    let keyspace = config.keyspace.to_string();
    let known = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    if any_row(session, known, (&keyspace,)).await? {
        return Ok(());
    }
    // Only ScyllaDB keeps this table of its own; Cassandra refuses options it does not know.
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

/// Runs one statement that changes the schema, and waits until all nodes agree about it.
pub(super) async fn change_schema(session: &Session, text: &str) -> Result<(), StoreError> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(SCHEMA_CHANGE_TIMEOUT));
    session.query_unpaged(statement, ()).await.map_err(unavailable)?;
    Ok(())
}

/// Whether a query finds anything.
pub(super) async fn any_row(
    session: &Session,
    text: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<bool, StoreError> {
    let found = session.query_unpaged(text, values).await.map_err(unavailable)?;
    Ok(found.into_rows_result().map_err(corrupt)?.rows_num() > 0)
}

/// Prepares a statement that changes nothing when it is repeated: the driver may try another node.
pub(super) async fn prepare_repeatable(
    session: &Session,
    text: &str,
    consistency: Consistency,
) -> Result<PreparedStatement, StoreError> {
    let mut statement = session.prepare(text).await.map_err(unavailable)?;
    statement.set_consistency(consistency);
    statement.set_is_idempotent(true);
    statement.set_retry_policy(Some(repeatable()));
    // The columns are those of the preparation; they need not come with every answer.
    statement.set_use_cached_result_metadata(true);
    Ok(statement)
}

/// The retry policy of what may be repeated.
pub(super) fn repeatable() -> Arc<dyn RetryPolicy> {
    Arc::new(DefaultRetryPolicy::new())
}

/// Prepares a conditional write: one try, whose outcome is read with [`outcome`].
pub(super) async fn prepare_conditional(
    session: &Session,
    text: &str,
) -> Result<PreparedStatement, StoreError> {
    session.prepare(text).await.map_err(unavailable)
}

/// What a conditional write came to. ScyllaDB answers a batch with a row for each of its statements, Cassandra with
/// one; all rows say the same, and their columns differ, so the first row's `[applied]` is looked up by name.
pub(super) fn outcome(answer: QueryResult) -> Result<Conditional, StoreError> {
    let rows = answer.into_rows_result().map_err(unavailable)?;
    let place = rows.column_specs().get_by_name("[applied]").map(|(place, _)| place);
    let first: Option<Row> = rows.maybe_first_row().map_err(unavailable)?;
    let applied = place.and_then(|place| first?.columns.into_iter().nth(place).flatten());
    match applied {
        Some(CqlValue::Boolean(true)) => Ok(Conditional::Applied),
        Some(CqlValue::Boolean(false)) => Ok(Conditional::Refused),
        _ => Err(unavailable("a conditional write was answered without `[applied]`")),
    }
}

/// No answer, or one that leaves the outcome open.
pub(super) fn unavailable(reason: impl ToString) -> StoreError {
    StoreError::Unavailable(reason.to_string())
}

/// An answer that cannot be.
pub(super) fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt(reason.to_string())
}

/// An unsigned number as CQL's `bigint`.
pub(super) fn bigint(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| corrupt(format!("{number} is too large to be stored")))
}

/// A `bigint` as the unsigned number it must be.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupt(format!("{number} is negative")))
}

/// An unsigned number as CQL's `int`.
pub(super) fn int(number: u32) -> Result<i32, StoreError> {
    i32::try_from(number).map_err(|_| corrupt(format!("{number} is too large to be stored")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_no_quotes_are_keyspaces() {
        for good in ["a", "allocator", "allocator_2", &"x".repeat(48)] {
            assert_eq!(good.parse::<KeyspaceName>().map(|name| name.to_string()), Ok(good.into()));
        }
        for bad in ["", "2a", "_a", "Allocator", "a-b", "a;b", "a b", "ä", &"x".repeat(49)] {
            assert_eq!(bad.parse::<KeyspaceName>(), Err(KeyspaceFault), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = ScyllaCredentials { user: "app".into(), password: "secret-word".into() };
        assert!(!format!("{login:?}").contains("secret-word"));
    }
}
