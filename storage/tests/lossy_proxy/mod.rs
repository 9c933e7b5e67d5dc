//! A proxy that forwards requests and, on demand, drops the responses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

pub struct LossyProxy {
    address: SocketAddr,
    drop_responses: Arc<AtomicBool>,
    _listener: AbortOnDropHandle<()>,
}

impl LossyProxy {
    /// Starts a proxy in front of `server`, on a free port.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drop_responses = Arc::new(AtomicBool::new(false));
        let (server, dropping) = (server.to_owned(), Arc::clone(&drop_responses));
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut requests = from_client;
                tokio::spawn(async move { copy(&mut requests, &mut to_server).await });
                tokio::spawn(forward_responses(from_server, to_client, Arc::clone(&dropping)));
            }
        };
        Self { address, drop_responses, _listener: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets whether responses are dropped. A connection that has dropped a response is closed at the next one: the
    /// bytes after a gap are meaningless.
    pub fn set_drop_responses(&self, drop: bool) {
        self.drop_responses.store(drop, Ordering::SeqCst);
    }
}

async fn forward_responses(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    dropping: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut has_dropped = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if dropping.load(Ordering::SeqCst) {
            has_dropped = true;
        } else if has_dropped || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
