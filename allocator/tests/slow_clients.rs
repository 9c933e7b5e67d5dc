//! Clients that are slow, idle or never read: a good client does not notice them, and they take bounded memory.
#![allow(clippy::unwrap_used)]

#[path = "support/plain_http.rs"]
mod plain_http;
#[path = "support/running.rs"]
mod running;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use plain_http::Client;
use running::{Running, start_with};
use tempfile::TempDir;

const SLOW_HEADS: usize = 300;
const SLOW_BODIES: usize = 300;
const IDLE: usize = 300;
const NEVER_READING: usize = 50;
const ALL: usize = SLOW_HEADS + SLOW_BODIES + IDLE + NEVER_READING;

/// `http.max_buffered_bytes` of the test: bodies that are read and large responses that are written, together.
const MAX_BUFFERED_BYTES: usize = 16 << 20;
/// What a connection may buffer: the head or body that is read, and the response that is written, 64 KiB each.
const MAX_CONNECTION_BYTES: usize = 2 * 64 * 1024;
/// Requests of the good client in one round.
const REQUESTS: usize = 400;
/// Rounds, of which the best counts: other programs of the machine disturb single ones.
const ROUNDS: usize = 4;
/// Below it, a 99th percentile says more about the machine than about the service.
const MIN_LIMIT: Duration = Duration::from_millis(50);
/// Between two bytes of a slow client.
const DRIP_INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(60);

const HEAD: &str = "GET /v1/budgets HTTP/1.1\r\nhost: town\r\nx-slow: ";
const BODY: &str = "POST /v1/budgets/taxes/submissions HTTP/1.1\r\nhost: town\r\ncontent-type: application/json\r\n\
                    content-length: 1000000\r\n\r\n{\"person\":\"";
const UNREAD: &str = "GET /openapi.json HTTP/1.1\r\nhost: town\r\n\r\n";

/// Bad clients, which go on until this is dropped.
struct BadClients {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BadClients {
    fn start(url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (url.trim_start_matches("http://").to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let begun = [(SLOW_HEADS, HEAD), (SLOW_BODIES, BODY), (IDLE, "")];
            let mut slow: Vec<(TcpStream, &str)> = begun
                .into_iter()
                .flat_map(|(clients, text)| std::iter::repeat_n(text, clients))
                .map(|text| (begin(&address, text), text))
                .collect();
            let mut unread: Vec<TcpStream> =
                (0..NEVER_READING).map(|_| begin(&address, "")).collect();
            while !stopped.load(Ordering::Relaxed) {
                for (stream, text) in &mut slow {
                    if !drip(stream, text) {
                        *stream = begin(&address, text);
                    }
                }
                for stream in &mut unread {
                    if !ask_without_reading(stream) {
                        *stream = begin(&address, "");
                    }
                }
                // The pace of these clients.
                thread::sleep(DRIP_INTERVAL);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for BadClients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn begin(address: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let _ = stream.write(text.as_bytes());
    stream
}

/// Sends one byte of a request that has begun. Returns whether the server still wants it.
fn drip(stream: &mut TcpStream, begun: &str) -> bool {
    let is_open = matches!(stream.read(&mut [0; 512]), Err(error) if is_pending(&error));
    is_open && (begun.is_empty() || is_sent(&stream.write(b"x")))
}

/// Sends requests until the server takes no more.
fn ask_without_reading(stream: &mut TcpStream) -> bool {
    let requests = UNREAD.repeat(20);
    loop {
        match stream.write(requests.as_bytes()) {
            Ok(sent) if sent == requests.len() => {}
            other => return is_sent(&other),
        }
    }
}

fn is_sent(outcome: &std::io::Result<usize>) -> bool {
    outcome.as_ref().map_or_else(is_pending, |_| true)
}

fn is_pending(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// The 99th percentile of a good client that reads and submits, in the best of some rounds.
fn best_p99(client: &mut Client) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let mut times: Vec<Duration> =
            (0..REQUESTS).map(|number| time_of(client, number)).collect();
        times.sort_unstable();
        times[REQUESTS * 99 / 100]
    });
    rounds.min().unwrap()
}

fn time_of(client: &mut Client, number: usize) -> Duration {
    let json = [("content-type", "application/json")];
    let body = format!(r#"{{"person":"p-{number}","allocation":{{"health":100}}}}"#);
    let started = Instant::now();
    let response = if number.is_multiple_of(4) {
        client.request(("POST", "/v1/budgets/taxes/submissions"), &json, body.as_bytes())
    } else {
        client.get("/v1/budgets/taxes/aggregate", &[])
    };
    assert!(matches!(response.status, 200 | 202), "{response:?}");
    started.elapsed()
}

fn resident_bytes(running: &Running) -> usize {
    let path = format!("/proc/{}/status", running.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn metric(client: &mut Client, name: &str) -> f64 {
    let text = client.get("/metrics", &[]).body;
    let sample = format!("{name}{{service=\"allocator\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok()).unwrap()
}

fn wait_for_connections(client: &mut Client, connections: usize) {
    let started = Instant::now();
    while (metric(client, "allocator_http_connections_open") as usize) < connections {
        assert!(started.elapsed() < TIMEOUT, "the bad clients are not connected");
    }
}

#[test]
fn slow_idle_and_unread_connections_cost_a_good_client_nothing_and_bounded_memory() {
    runtime::open_files::raise_limit();
    let data = TempDir::new().unwrap();
    let buffered = format!("http.max_buffered_bytes={MAX_BUFFERED_BYTES}");
    let settings =
        [&*buffered, "limits.person=off", "limits.submissions=off", "limits.general=off"];
    let running = start_with(data.path(), &settings);
    let mut good = Client::connect(&running.url);
    let mut operator = Client::connect(&running.url);
    // The first requests of a process are slower.
    best_p99(&mut good);
    let before = best_p99(&mut good);
    let bytes_before = resident_bytes(&running);

    let bad = BadClients::start(&running.url);
    wait_for_connections(&mut operator, ALL);
    let beside = best_p99(&mut good);
    let bytes_beside = resident_bytes(&running);
    wait_for_connections(&mut operator, ALL);

    let limit = (2 * before).max(MIN_LIMIT);
    assert!(beside < limit, "p99 of a good client: {before:?} alone, {beside:?} beside bad ones");
    let max_growth = MAX_BUFFERED_BYTES + ALL * MAX_CONNECTION_BYTES;
    let growth = bytes_beside.saturating_sub(bytes_before);
    println!("p99 {before:?} -> {beside:?}; memory grew by {growth} bytes of {max_growth}");
    assert!(growth < max_growth, "memory grew by {growth} bytes, more than {max_growth}");
    assert_eq!(metric(&mut operator, "allocator_http_connections_refused_total"), 0.0);
    drop(bad);
    assert_eq!(good.get("/livez", &[]).status, 200);
}
