//! Limits of connections: their number, their speed, and the drain at shutdown.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod support;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::get;
use futures_util::stream;
use http::StatusCode;
use runtime::client::TrustedProxies;
use runtime::http::{HttpConfig, bind};
use support::{Server, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\n";
const OPEN: &str = "allocator_http_connections_open{service=\"test\"}";

fn hello() -> Router {
    Router::new().route("/hello", get(async || "hello"))
}

/// A route `/gate` that signals each request, and responds once the token is cancelled.
fn gate() -> (Router, mpsc::Receiver<()>, CancellationToken) {
    let (entered, is_entered) = mpsc::channel(8);
    let open = CancellationToken::new();
    let wait = open.clone();
    let route = get(async move || {
        let _ = entered.send(()).await;
        wait.cancelled().await;
        "through"
    });
    (hello().route("/gate", route), is_entered, open)
}

const GATE: &str = "GET /gate HTTP/1.1\r\nhost: test\r\n\r\n";

#[tokio::test]
async fn a_slow_head_times_out_even_if_bytes_keep_arriving() {
    let header_timeout = Duration::from_millis(200);
    let config = HttpConfig { header_timeout, ..HttpConfig::default() };
    let server = Server::start(hello(), config);

    let mut silent = server.connect().await;
    assert!(silent.response().await.is_none(), "no request, no response");

    let mut half = server.connect().await;
    half.send("GET /hello HTTP/1.1\r\nhost:").await;
    half.response().await.unwrap().problem(408, "request-timeout");

    // Each byte arrives in time, the complete head does not.
    let dripping = server.connect().await;
    let (mut reader, mut writer) = dripping.stream.into_split();
    let drip = tokio::spawn(async move {
        let mut every = tokio::time::interval(header_timeout / 10);
        for byte in HELLO.as_bytes().iter().cycle() {
            every.tick().await;
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    let mut read = Vec::new();
    let _ = within(reader.read_to_end(&mut read)).await;
    drip.abort();
    assert!(read.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&read));

    let mut idle = server.connect().await;
    idle.send(HELLO).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    assert!(idle.response().await.is_none(), "an idle connection is closed without a response");
    eventually("all connections are closed", || server.sample(OPEN) == 0.0).await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_gets_503_until_another_closes() {
    let config = HttpConfig { max_connections: 2, ..HttpConfig::default() };
    let server = Server::start(hello(), config);
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for client in [&mut first, &mut second] {
        client.send(HELLO).await;
        assert_eq!(client.response().await.unwrap().status, 200);
    }
    assert_eq!(server.sample(OPEN), 2.0);

    let mut third = server.connect().await;
    third.send(HELLO).await;
    let refused = third.response().await.unwrap();
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.sample("allocator_http_connections_refused_total{service=\"test\"}"), 1.0);

    // Open connections are not affected.
    first.send(HELLO).await;
    assert_eq!(first.response().await.unwrap().status, 200);
    drop(second);
    eventually("a connection slot is free", || server.sample(OPEN) == 1.0).await;
    assert_eq!(server.send(HELLO).await.status, 200);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_of_its_address_gets_503_unless_the_address_is_a_proxy() {
    let config = HttpConfig { max_connections_per_address: 1, ..HttpConfig::default() };
    let no_proxies = TrustedProxies::parse("").unwrap();
    let server =
        Server::start_behind(no_proxies, hello(), config.clone(), CancellationToken::new());
    let mut first = server.connect().await;
    first.send(HELLO).await;
    assert_eq!(first.response().await.unwrap().status, 200);
    let mut second = server.connect().await;
    second.send(HELLO).await;
    second.response().await.unwrap().problem(503, "unavailable");
    let refused = "allocator_http_connections_refused_by_address_total{service=\"test\"}";
    assert_eq!(server.sample(refused), 1.0);
    drop(first);
    eventually("a connection slot is free", || server.sample(OPEN) == 0.0).await;
    assert_eq!(server.send(HELLO).await.status, 200);

    let server = Server::start(hello(), config);
    let mut clients = [server.connect().await, server.connect().await];
    for client in &mut clients {
        client.send(HELLO).await;
        assert_eq!(client.response().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_disconnected() {
    let config =
        HttpConfig { request_timeout: Duration::from_millis(200), ..HttpConfig::default() };
    let endless = get(async || {
        let piece = Bytes::from(vec![0; 64 * 1024]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))
    });
    let server = Server::start(Router::new().route("/endless", endless), config);
    let mut client = server.connect().await;
    client.send("GET /endless HTTP/1.1\r\nhost: test\r\n\r\n").await;
    eventually("the connection is open", || server.sample(OPEN) == 1.0).await;
    eventually("the connection is closed", || server.sample(OPEN) == 0.0).await;
}

#[tokio::test]
async fn shutdown_answers_requests_in_flight_and_rejects_new_connections() {
    let (routes, mut entered, open) = gate();
    let server = Server::start(routes, HttpConfig::default());
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.send(HELLO).await;
    idle.response().await.unwrap();
    let mut busy = server.connect().await;
    busy.send(GATE).await;
    within(entered.recv()).await;

    server.stop.cancel();
    assert!(idle.response().await.is_none());
    assert!(silent.response().await.is_none());
    within(async { while tokio::net::TcpStream::connect(server.address).await.is_ok() {} }).await;
    assert!(!server.task.is_finished());

    open.cancel();
    let response = busy.response().await.unwrap();
    assert_eq!(response.body, b"through");
    assert_eq!(response.header("connection"), Some("close"));
    within(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_that_outlast_the_drain_timeout_are_aborted() {
    let (routes, mut entered, _never_opened) = gate();
    let config = HttpConfig { drain_timeout: Duration::from_millis(100), ..HttpConfig::default() };
    let server = Server::start(routes, config);
    let mut busy = server.connect().await;
    busy.send(GATE).await;
    within(entered.recv()).await;
    server.stop.cancel();
    assert!(busy.response().await.is_none());
    let metrics = server.metrics.clone();
    within(server.task).await.unwrap().unwrap();
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains("allocator_http_connections_cut_total{service=\"test\"} 1"), "{text}");
}

#[tokio::test]
async fn a_stream_that_watches_the_token_does_not_delay_shutdown() {
    let stop = CancellationToken::new();
    let watch = stop.clone();
    let stream = get(async move || {
        let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"first")) });
        let end = stream::once(async move {
            watch.cancelled().await;
            Ok(Bytes::from_static(b"last"))
        });
        Body::from_stream(futures_util::StreamExt::chain(first, end))
    });
    let server =
        Server::start_until(Router::new().route("/stream", stream), HttpConfig::default(), stop);
    let mut client = server.connect().await;
    client.send("GET /stream HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut read = Vec::new();
    while !read.ends_with(b"first\r\n") {
        assert!(within(client.stream.read_buf(&mut read)).await.unwrap() > 0);
    }
    server.stop.cancel();
    within(client.stream.read_to_end(&mut read)).await.unwrap();
    assert!(read.ends_with(b"4\r\nlast\r\n0\r\n\r\n"));
    within(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_slot_and_is_drained() {
    let echo = get(async |mut request: Request| {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
            let mut word = [0; 4];
            while io.read_exact(&mut word).await.is_ok() {
                io.write_all(&word).await.unwrap();
            }
        });
        let headers = [("connection", "upgrade"), ("upgrade", "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, headers)
    });
    let server = Server::start(Router::new().route("/echo", echo), HttpConfig::default());
    let mut client = server.connect().await;
    client
        .send("GET /echo HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert_eq!(client.response().await.unwrap().status, 101);
    client.send("ping").await;
    let mut word = [0; 4];
    within(client.stream.read_exact(&mut word)).await.unwrap();
    assert_eq!((&word, server.sample(OPEN)), (b"ping", 1.0));

    server.stop.cancel();
    client.send("pong").await;
    within(client.stream.read_exact(&mut word)).await.unwrap();
    assert!(!server.task.is_finished());
    drop(client);
    within(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_error_names_an_address_in_use() {
    let server = Server::start(hello(), HttpConfig::default());
    let error = bind(server.address).unwrap_err().to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn a_request_whose_client_disconnects_is_counted_once() {
    let (routes, mut entered, _never_opened) = gate();
    let server = Server::start(routes, HttpConfig::default());
    let mut client = server.connect().await;
    client.send(GATE).await;
    within(entered.recv()).await;
    drop(client);
    let gone = "allocator_http_requests_total{method=\"GET\",route=\"/gate\",service=\"test\",status=\"499\"}";
    eventually("the request is counted", || server.sample(gone) == 1.0).await;
    assert_eq!(server.sample("allocator_http_requests_in_flight{service=\"test\"}"), 0.0);
}
