//! Streams and WebSockets through the gateway: nginx neither keeps an event back, nor a frame, nor a refusal.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::event_stream::EventStream;
use e2e::gateway::Gateway;
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const BUDGET: &str = "streamed";
const STREAM: &str = "/v1/budgets/streamed/aggregate/stream";
const WEBSOCKET: &str = "/v1/budgets/streamed/aggregate/ws";
const SUBPROTOCOL: &str = "allocator.aggregate.v1";
/// Less than the interval of beats: an event that is kept back until the next beat is late.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Two pings, and a while.
const PINGS_TIMEOUT: Duration = Duration::from_secs(45);

type WebSocket = WebSocketStream<TcpStream>;

/// A stack with a budget behind a gateway.
struct Served {
    stack: Stack,
    gateway: Gateway,
}

impl Served {
    async fn start(settings: &[&str]) -> Result<Self> {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let builder = StackBuilder { ingests: 2, apis: 2, settings, ..Stack::builder() };
        let stack = builder.start().await?;
        let gateway = Gateway::start(&stack).await?;
        stack.system.define(BUDGET, 2).await?;
        let served = Self { stack, gateway };
        served.submit("first").await?;
        Ok(served)
    }

    async fn submit(&self, person: &str) -> Result<()> {
        self.stack.system.submit(BUDGET, person, &[2_500, 7_500]).await.map(drop)
    }

    async fn stream(&self, last_event_id: Option<&str>) -> Result<EventStream> {
        EventStream::open(&self.gateway.url, STREAM, last_event_id).await
    }

    async fn websocket(&self, query: &str) -> Result<WebSocket> {
        let host = self.gateway.url.trim_start_matches("http://");
        let mut request = format!("ws://{host}{WEBSOCKET}{query}").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        let tcp = TcpStream::connect(host).await?;
        let (socket, response) = tokio_tungstenite::client_async(request, tcp).await?;
        ensure!(response.headers()["sec-websocket-protocol"] == SUBPROTOCOL, "{response:?}");
        Ok(socket)
    }
}

/// Waits for an aggregate with this many people; returns its id.
async fn people_in_stream(stream: &mut EventStream, people: u64) -> Result<String> {
    loop {
        let event = timeout(EVENT_TIMEOUT, stream.next()).await.context("no event")??;
        if event.name == "beat" {
            continue;
        }
        let data: Value = serde_json::from_str(&event.data)?;
        let shown = data["people"].as_u64().context("no people")?;
        ensure!(shown <= people, "{shown} people instead of {people}");
        if shown == people {
            return event.id.context("no id");
        }
    }
}

async fn message(socket: &mut WebSocket) -> Result<Message> {
    let message = timeout(EVENT_TIMEOUT, socket.next()).await.context("no message")?;
    Ok(message.context("the connection was closed")??)
}

/// Waits for an aggregate with this many people; returns its id.
async fn people_in_websocket(socket: &mut WebSocket, people: u64) -> Result<String> {
    loop {
        let Message::Text(text) = message(socket).await? else { continue };
        let event: Value = serde_json::from_str(&text)?;
        if event["event"] == "beat" {
            continue;
        }
        let shown = event["data"]["people"].as_u64().context("no people")?;
        ensure!(shown <= people, "{shown} people instead of {people}");
        if shown == people {
            return Ok(event["id"].as_str().context("no id")?.to_owned());
        }
    }
}

/// Waits for the server's close frame; returns its code.
async fn close_code(socket: &mut WebSocket) -> Result<u16> {
    loop {
        if let Message::Close(frame) = message(socket).await? {
            return Ok(frame.context("no code")?.code.into());
        }
    }
}

#[test]
fn a_stream_through_the_gateway_is_not_buffered_and_resumes() {
    scenario(async || {
        let served = Served::start(&[]).await?;
        let mut stream = served.stream(None).await?;
        people_in_stream(&mut stream, 1).await?;
        // Nothing follows that could push a kept event out.
        served.submit("second").await?;
        let seen = people_in_stream(&mut stream, 2).await?;
        let mut resumed = served.stream(Some(&seen)).await?;
        let first = timeout(EVENT_TIMEOUT, resumed.next()).await.context("no event")??;
        ensure!(first.name == "beat", "what the reader has is sent again: {first:?}");
        served.submit("third").await?;
        people_in_stream(&mut resumed, 3).await?;
        people_in_stream(&mut stream, 3).await?;
        Ok(())
    });
}

#[test]
fn a_websocket_through_the_gateway_has_the_subprotocol_newer_aggregates_and_resumes() {
    scenario(async || {
        let served = Served::start(&[]).await?;
        let mut socket = served.websocket("").await?;
        people_in_websocket(&mut socket, 1).await?;
        served.submit("second").await?;
        let seen = people_in_websocket(&mut socket, 2).await?;
        let mut resumed = served.websocket(&format!("?last_event_id={seen}")).await?;
        let first = message(&mut resumed).await?;
        ensure!(
            first.to_text()?.contains("\"beat\""),
            "what the reader has is sent again: {first}"
        );
        served.submit("third").await?;
        people_in_websocket(&mut resumed, 3).await?;

        resumed.send(Message::Ping(vec![7; 125].into())).await?;
        loop {
            if let Message::Pong(echo) = message(&mut resumed).await? {
                ensure!(echo[..] == [7; 125], "{echo:?}");
                break;
            }
        }
        resumed.close(None).await?;
        ensure!(matches!(message(&mut resumed).await?, Message::Close(_)), "no answer to a close");
        socket.send(Message::Text("hello".into())).await?;
        ensure!(close_code(&mut socket).await? == 1008);
        Ok(())
    });
}

#[test]
fn a_websocket_that_answers_pings_stays_open_and_a_mute_one_does_not() {
    scenario(async || {
        let served = Served::start(&[]).await?;
        let mut mute = served.websocket("").await?;
        let mut socket = served.websocket("").await?;
        people_in_websocket(&mut socket, 1).await?;
        let two_pings = async {
            let mut pings = 0;
            while pings < 2 {
                // Reading answers them.
                match socket.next().await.context("the connection was closed")?? {
                    Message::Ping(_) => pings += 1,
                    Message::Text(text) => ensure!(text.contains("\"beat\""), "{text}"),
                    other => bail!("{other}"),
                }
            }
            Ok(())
        };
        // Reads without answering.
        let end = async { mute.get_mut().read_to_end(&mut Vec::new()).await };
        timeout(PINGS_TIMEOUT, two_pings).await.context("fewer than two pings")??;
        timeout(PINGS_TIMEOUT, end).await.context("the mute client is still connected")??;
        served.submit("second").await?;
        people_in_websocket(&mut socket, 2).await?;
        Ok(())
    });
}

#[test]
fn beyond_the_limits_of_all_apis_streams_are_refused_and_their_places_are_given_back() {
    scenario(async || {
        let served = Served::start(&["api.max_streams=1"]).await?;
        let mut open = served.stream(None).await?;
        people_in_stream(&mut open, 1).await?;
        // nginx asks the other api after a 503. A WebSocket is refused by a frame, so it is not sent to another.
        ensure!(close_code(&mut served.websocket("").await?).await? == 1013);
        let mut other = served.stream(None).await?;
        people_in_stream(&mut other, 1).await?;
        let refused = e2e::http_client::get(format!("{}{STREAM}", served.gateway.url)).await?;
        ensure!(refused.status() == 503, "{refused:?}");
        ensure!(refused.headers().contains_key("retry-after"), "{refused:?}");
        ensure!(refused.text().await?.contains("too many streams"), "another refusal");

        drop((open, other));
        eventually("the places are given back", EVENT_TIMEOUT, async || {
            let mut socket = served.websocket("").await?;
            people_in_websocket(&mut socket, 1).await.map(drop)
        })
        .await
    });
}

#[test]
fn a_stopping_api_says_through_the_gateway_that_it_goes_away() {
    scenario(async || {
        let mut served = Served::start(&[]).await?;
        let mut socket = served.websocket("").await?;
        people_in_websocket(&mut socket, 1).await?;
        for api in &mut served.stack.apis {
            api.process.signal(e2e::process::Signal::Term)?;
        }
        ensure!(close_code(&mut socket).await? == 1001);
        Ok(())
    });
}
