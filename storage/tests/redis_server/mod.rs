//! A `redis-server` of one test, which `local/up servers` installs.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use storage::cache::redis::RedisConfig;
use tempfile::TempDir;

use crate::wait::{TEST_TIMEOUT, until};

/// A timeout long enough for a busy machine. Far more than the 5 ms that a call may take while Redis is down.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(1);

pub const PORT: u16 = 6379;

/// A Redis server that is stopped with the test.
pub struct Server {
    /// An unused loopback address, so that all servers can use the same port.
    pub address: Ipv4Addr,
    pub password: Option<&'static str>,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Creates a server that is not running yet.
    pub fn stopped() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
        Self { address, password: None, dir: tempfile::tempdir().unwrap(), child: None }
    }

    pub async fn running() -> Self {
        let mut server = Self::stopped();
        server.start().await;
        server
    }

    pub fn url(&self) -> String {
        let login = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{login}{}:{PORT}", self.address)
    }

    pub fn config(&self) -> RedisConfig {
        RedisConfig { url: self.url().parse().unwrap(), timeout: CALL_TIMEOUT }
    }

    /// Starts the server without data.
    pub async fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &self.address.to_string(), "--port", &PORT.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(self.dir.path());
        command.args(self.password.map(|password| ["--requirepass", password]).iter().flatten());
        let child = command.stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("no redis-server: `local/up servers` installs it"));
        let client = redis::Client::open(self.url()).unwrap();
        until("redis-server answers", TEST_TIMEOUT, async || {
            client.get_multiplexed_async_connection().await.is_ok()
        })
        .await;
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let child = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &child]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
