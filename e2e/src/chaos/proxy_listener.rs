//! What every proxy of the chaos runs has in common: it accepts connections on a loopback port, each in a task of its
//! own, and connects each to the server behind it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::wait::eventually;

const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A listening proxy. Dropping it closes its connections.
#[derive(Debug)]
pub(super) struct ProxyListener {
    port: u16,
    accepting: JoinHandle<()>,
}

impl ProxyListener {
    /// Listens on a loopback port (0 for any) and serves each connection.
    ///
    /// # Errors
    /// When the port is in use.
    pub async fn start<F>(
        port: u16,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // An earlier proxy may need a moment to release the port.
        let listener = eventually("the proxy listens", LISTEN_TIMEOUT, async || {
            TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))
        })
        .await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, accepting: tokio::spawn(accept(listener, serve)) })
    }

    /// The address, `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for ProxyListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(serve(client));
            }
            // Out of file descriptors for now.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The loopback address of a server.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Connects a client to the server; `None` if it does not listen.
pub(super) async fn connect(client: &TcpStream, server: SocketAddr) -> Option<TcpStream> {
    let server = TcpStream::connect(server).await.ok()?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    Some(server)
}
