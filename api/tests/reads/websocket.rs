//! WebSockets, on real connections: what is sent, what clients may send, and how connections end.
//!
//! The clock runs here, because sockets do not wait for a paused one.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use storage::cache::CacheUpdate;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_util::sync::CancellationToken;

use crate::test_server::*;
use crate::updates::changed;

pub const PATH: &str = "/v1/budgets/town/aggregate/ws";
const SUBPROTOCOL: &str = "allocator.aggregate.v1";
const LIMIT: Duration = Duration::from_secs(20);

type Client = WebSocketStream<TcpStream>;

/// A server with one person in `town`, on a port.
pub struct Served {
    pub server: TestServer,
    pub address: std::net::SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let server = TestServer::with_settings(settings).until_ready().await;
        server.commit("town", &[(0, [5_000, 5_000])]);
        server.cache.send_update(CacheUpdate::Resumed);
        assert_eq!(server.aggregate("town").await.people(), 1);
        let stop = CancellationToken::new();
        let address = server.serve(stop.clone());
        Self { server, address, _stop: stop.drop_guard() }
    }

    async fn connect(&self, query: &str) -> Client {
        let url = format!("ws://{}{PATH}{query}", self.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let (client, response) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        client
    }

    fn commit(&self, people: usize) {
        self.server.commit("town", &vec![(0, [5_000, 5_000]); people]);
        self.server.cache.send_update(changed("town"));
    }
}

async fn next(client: &mut Client) -> Message {
    timeout(LIMIT, client.next()).await.unwrap().unwrap().unwrap()
}

/// Waits for the next event.
async fn event(client: &mut Client) -> Value {
    loop {
        if let Message::Text(text) = next(client).await {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Waits until the server closes; returns its code.
async fn close_code(client: &mut Client) -> u16 {
    loop {
        if let Message::Close(frame) = next(client).await {
            return frame.unwrap().code.into();
        }
    }
}

#[tokio::test]
async fn a_websocket_begins_with_the_answer_goes_on_with_newer_ones_and_resumes() {
    let served = Served::start(&[]).await;
    let mut client = served.connect("").await;
    let first = event(&mut client).await;
    assert_eq!((&first["event"], &first["data"]["people"]), (&"aggregate".into(), &1.into()));
    assert_eq!(first["id"], first["data"]["version"]);
    served.commit(2);
    assert_eq!(event(&mut client).await["data"]["people"], 2);
    let seen = served.server.aggregate("town").await.json()["version"].clone();
    let mut resumed = served.connect(&format!("?last_event_id={}", seen.as_str().unwrap())).await;
    assert_eq!(event(&mut resumed).await, serde_json::json!({"event": "beat", "data": {}}));
    served.commit(3);
    assert_eq!(event(&mut resumed).await["data"]["people"], 3);
}

#[tokio::test]
async fn a_client_that_talks_or_breaks_the_protocol_is_ended_and_pings_are_answered() {
    let served = Served::start(&[]).await;
    let mut client = served.connect("").await;
    client.send(Message::Ping(vec![7; 125].into())).await.unwrap();
    loop {
        if let Message::Pong(echo) = next(&mut client).await {
            assert_eq!(&echo[..], [7; 125]);
            break;
        }
    }
    client.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(close_code(&mut client).await, 1008);
    let frame = |opcode, payload: Vec<u8>| {
        let header = FrameHeader { opcode: OpCode::Data(opcode), ..FrameHeader::default() };
        Message::Frame(Frame::from_payload(header, payload.into()))
    };
    for (message, code) in [
        (Message::Binary(vec![0; 4].into()), 1008),
        (Message::Binary(vec![0; 2_000].into()), 1009),
        (frame(Data::Text, vec![0xff, 0xfe]), 1007),
        (frame(Data::Reserved(3), vec![0]), 1002),
    ] {
        let mut client = served.connect("").await;
        client.send(message.clone()).await.unwrap();
        assert_eq!(close_code(&mut client).await, code, "{message:?}");
    }
    let mut flooding = served.connect("").await;
    for _ in 0..100 {
        if flooding.send(Message::Ping(vec![].into())).await.is_err() {
            break;
        }
    }
    assert_eq!(close_code(&mut flooding).await, 1008);
}

#[tokio::test]
async fn beyond_the_limit_a_websocket_is_told_to_try_again_later_and_places_are_given_back() {
    let served = Served::start(&[("api.max_streams", "1")]).await;
    let mut open = served.connect("").await;
    event(&mut open).await;
    let mut refused = served.connect("").await;
    assert_eq!(close_code(&mut refused).await, 1013);
    assert_eq!(served.server.open("/v1/budgets/town/aggregate/stream").await.status(), 503);
    drop(open);
    wait_until("the place is given back", || served.server.metric("allocator_api_streams") == 0.0)
        .await;
    event(&mut served.connect("").await).await;
}

#[tokio::test]
async fn a_stopping_server_says_that_it_goes_away() {
    let served = Served::start(&[]).await;
    let mut client = served.connect("").await;
    event(&mut client).await;
    served.server.stop.cancel();
    assert_eq!(close_code(&mut client).await, 1001);
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_malformed_and_an_unknown_budget_not_found() {
    let served = Served::start(&[]).await;
    let got = served.server.get(PATH).await;
    assert_eq!((got.status.as_u16(), got.header("sec-websocket-version")), (400, "13"));
    assert_eq!(served.server.get("/v1/budgets/nowhere/aggregate/ws").await.status, 404);
}

#[tokio::test]
async fn withheld_results_have_no_number_and_no_id() {
    let served = Served::start(&[]).await;
    let budget = schemas::Budget { minimum_people: 3, revision: 2, ..budget("town") };
    served.server.definitions.put(budget);
    while served.server.aggregate("town").await.json()["withheld"].is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = served.connect("").await;
    let first = event(&mut client).await;
    assert_eq!(first.get("id"), None);
    assert_eq!(first["data"]["withheld"]["reason"], "minimum_people");
    served.commit(2);
    served.commit(3);
    assert_eq!(event(&mut client).await["data"]["people"], 3);
}
