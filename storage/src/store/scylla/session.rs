//! The session: who is asked, how long, and in which keyspace.

use std::sync::Arc;
use std::time::Duration;

use schemas::cql::SCYLLA_KEYSPACE_OPTIONS;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::{Consistency, SerialConsistency};

use super::{ScyllaConfig, unavailable};
use crate::store::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn open(config: &ScyllaConfig) -> Result<Session, StoreError> {
    let connecting = async {
        let scout = connect(config, None).await?;
        let datacenter = match &config.datacenter {
            Some(datacenter) => datacenter.clone(),
            None => local_datacenter(&scout).await?,
        };
        create_keyspace(&scout, config, &datacenter).await?;
        let session = connect(config, Some(datacenter)).await?;
        session.use_keyspace(&config.keyspace, true).await.map_err(unavailable)?;
        Ok(session)
    };
    let timed_out =
        |_| StoreError::Unavailable(format!("no answer from {}", config.nodes.join(", ")));
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(timed_out)?
}

async fn connect(config: &ScyllaConfig, datacenter: Option<String>) -> Result<Session, StoreError> {
    let mut balancing = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = datacenter {
        balancing = balancing.prefer_datacenter(datacenter);
    }
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(config.request_timeout))
        .load_balancing_policy(balancing.build())
        // Who repeats a write must know that it is a repetition: the callers do, the driver must not.
        .retry_policy(Arc::new(FallthroughRetryPolicy))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .tcp_nodelay(true)
        .connection_timeout(config.request_timeout)
        .default_execution_profile_handle(profile.into_handle());
    if let Some(user) = &config.user {
        builder = builder.user(user, password(config)?);
    }
    builder.build().await.map_err(unavailable)
}

fn password(config: &ScyllaConfig) -> Result<String, StoreError> {
    let Some(path) = &config.password_file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        StoreError::Corrupt(format!("scylla.password_file {}: {error}", path.display()))
    })?;
    Ok(text.trim_end().to_owned())
}

async fn local_datacenter(session: &Session) -> Result<String, StoreError> {
    let result = session
        .query_unpaged("SELECT data_center FROM system.local", &[])
        .await
        .map_err(unavailable)?;
    let rows = result.into_rows_result().map_err(unavailable)?;
    let (datacenter,) = rows.first_row::<(String,)>().map_err(unavailable)?;
    Ok(datacenter)
}

async fn create_keyspace(
    session: &Session,
    config: &ScyllaConfig,
    datacenter: &str,
) -> Result<(), StoreError> {
    let name = &config.keyspace;
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !plain(name) || !plain(datacenter) {
        return Err(StoreError::Corrupt(format!("`{name}` or `{datacenter}` is not a plain name")));
    }
    let options = if is_scylla(session).await? { SCYLLA_KEYSPACE_OPTIONS } else { "" };
    let statement = format!(
        "CREATE KEYSPACE IF NOT EXISTS \"{name}\" WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{datacenter}': {}}}{options}",
        config.replication_factor
    );
    session.query_unpaged(statement, &[]).await.map_err(unavailable)?;
    session.await_schema_agreement().await.map_err(unavailable)?;
    Ok(())
}

/// ScyllaDB has a system table of its own; some of its options are no CQL to Cassandra.
async fn is_scylla(session: &Session) -> Result<bool, StoreError> {
    let query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = 'scylla_local'";
    let result = session.query_unpaged(query, &[]).await.map_err(unavailable)?;
    let rows = result.into_rows_result().map_err(unavailable)?;
    Ok(rows.rows_num() > 0)
}
