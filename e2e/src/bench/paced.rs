//! An open-loop load generator for a fixed rate: the latency of each request counts from its scheduled time, even if
//! earlier requests were late.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// Builds the bytes of a GET request.
pub fn get(url: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", host(url)).into_bytes()
}

/// Builds the bytes of a POST request with a JSON body.
pub fn post(url: &str, path: &str, body: &str) -> Vec<u8> {
    let (host, length) = (host(url), body.len());
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Time to open the connections before the first request.
const LEAD: Duration = Duration::from_millis(100);

/// Sends requests at a fixed rate and returns their latencies in milliseconds.
///
/// All connections share one thread: on a machine with few cores, more threads would slow the measured server down.
///
/// # Errors
/// When a response is not 2xx.
pub async fn at_rate(
    url: &str,
    connections: u32,
    rate: f64,
    duration: Duration,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Vec<f64>> {
    from(Instant::now() + LEAD, url, connections, rate, duration, request).await
}

/// Does the same as [`at_rate`] from `start` on: the request with the number `n` is due `n / rate` seconds after it.
///
/// # Errors
/// When a response is not 2xx.
pub async fn from(
    start: Instant,
    url: &str,
    connections: u32,
    rate: f64,
    duration: Duration,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Vec<f64>> {
    let host = host(url).to_owned();
    tokio::task::spawn_blocking(move || {
        let thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let load = on_this_thread(start, &host, connections, rate, duration, Arc::new(request));
        thread.block_on(load)
    })
    .await?
}

async fn on_this_thread(
    start: Instant,
    host: &str,
    connections: u32,
    rate: f64,
    duration: Duration,
    request: Arc<impl Fn(u64) -> Vec<u8> + Send + Sync + 'static>,
) -> Result<Vec<f64>> {
    let mut workers = JoinSet::new();
    let interval = Duration::from_secs_f64(f64::from(connections) / rate);
    for connection in 0..connections {
        let (host, request) = (host.to_owned(), Arc::clone(&request));
        // The schedules of the connections are staggered.
        let first = start + interval.mul_f64(f64::from(connection) / f64::from(connections));
        workers.spawn(async move {
            let mut client = Client::connect(&host).await?;
            let mut latencies = Vec::new();
            let mut due = first;
            for number in 0_u64.. {
                if due > start + duration {
                    break;
                }
                sleep_until(due).await;
                client
                    .exchange(&request(number * u64::from(connections) + u64::from(connection)))
                    .await?;
                latencies.push(due.elapsed().as_secs_f64() * 1_000.0);
                due += interval;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = workers.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}

/// One connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let length = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
            if let Some(length) = response_length(&self.buffer)? {
                break length;
            }
        };
        while self.buffer.len() < length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        }
        let status = self.buffer.get(9..12).unwrap_or_default();
        ensure!(
            status.first() == Some(&b'2'),
            "unexpected response: {}",
            String::from_utf8_lossy(&self.buffer)
        );
        Ok(())
    }
}

/// The total length of a response, once its headers are complete.
fn response_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let length = bytes[..end].split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(CONTENT_LENGTH.len())?;
        name.eq_ignore_ascii_case(CONTENT_LENGTH).then_some(value)
    });
    let length = std::str::from_utf8(length.context("the response has no content-length")?)?;
    Ok(Some(end + 4 + length.trim().parse::<usize>()?))
}
