//! Faults of a running Redis, injected by its own commands.

use anyhow::{Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisResult, cmd};

use super::fault::RedisFault;

/// A port without a server. A replica of it rejects writes.
const UNUSED_PORT: &str = "1";

/// Starts a fault and checks that it took effect.
///
/// # Errors
/// When the fault did not take effect.
pub async fn begin(url: &str, fault: RedisFault) -> Result<()> {
    let mut redis = connect(url).await?;
    match fault {
        RedisFault::Flush => {
            let keys: u64 = cmd("DBSIZE").query_async(&mut redis).await?;
            ensure!(keys > 0, "there were no keys to delete");
            run(&mut redis, &["FLUSHALL"]).await?;
            return Ok(());
        }
        RedisFault::ReadOnly => run(&mut redis, &["REPLICAOF", "127.0.0.1", UNUSED_PORT]).await?,
        RedisFault::OutOfMemory => {
            run(&mut redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
            run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await?;
        }
    }
    let probe: RedisResult<()> = cmd("SET").arg("chaos-probe").arg(1).query_async(&mut redis).await;
    ensure!(probe.is_err(), "Redis still accepts writes");
    Ok(())
}

/// Ends a fault.
///
/// # Errors
/// When Redis does not respond.
pub async fn end(url: &str, fault: RedisFault) -> Result<()> {
    let mut redis = connect(url).await?;
    match fault {
        RedisFault::Flush => Ok(()),
        RedisFault::ReadOnly => run(&mut redis, &["REPLICAOF", "NO", "ONE"]).await,
        RedisFault::OutOfMemory => run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await,
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection> {
    Ok(Client::open(url)?.get_multiplexed_async_connection().await?)
}

async fn run(redis: &mut MultiplexedConnection, words: &[&str]) -> Result<()> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    Ok(command.query_async(redis).await?)
}
