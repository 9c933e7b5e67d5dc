//! A proxy that passes requests on and, when told to, keeps the answers to itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

pub struct LossyProxy {
    address: SocketAddr,
    loses_answers: Arc<AtomicBool>,
    _listener: AbortOnDropHandle<()>,
}

impl LossyProxy {
    /// Listens on a port of its own, in front of `server`.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let loses_answers = Arc::new(AtomicBool::new(false));
        let (server, loses) = (server.to_owned(), Arc::clone(&loses_answers));
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut requests = from_client;
                tokio::spawn(async move { copy(&mut requests, &mut to_server).await });
                tokio::spawn(answers(from_server, to_client, Arc::clone(&loses)));
            }
        };
        Self { address, loses_answers, _listener: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on answers get lost, or no longer do. A connection that lost one is closed at its next answer: what
    /// comes after a gap means nothing.
    pub fn lose_answers(&self, lose: bool) {
        self.loses_answers.store(lose, Ordering::SeqCst);
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, loses: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    let mut has_lost = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if loses.load(Ordering::SeqCst) {
            has_lost = true;
        } else if has_lost || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
