//! The WebSocket protocol by its bytes: every frame that RFC 6455 forbids ends the connection with the code that it
//! demands, everything else that a client may send is answered, and nothing hangs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::websocket::{PATH, Served};

/// Less than the interval of pings.
const LIMIT: Duration = Duration::from_secs(10);

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What the server does with what a client sends.
#[derive(Debug, PartialEq)]
enum Ending {
    /// It closes with this code, or without one.
    Closed(Option<u16>),
    /// The connection ends without a close frame.
    Lost,
}

/// Builds a masked frame.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match payload.len() {
        length @ 0..=125 => bytes.push(MASKED | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(MASKED | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(MASKED | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FINAL | opcode, payload)
}

/// A part of a message that others follow.
fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// A connection after its handshake.
struct RawClient {
    tcp: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    async fn connect(served: &Served) -> Self {
        let mut tcp = TcpStream::connect(served.address).await.unwrap();
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nhost: town\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let head = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break received.drain(..end + 4).collect::<Vec<u8>>();
            }
            assert!(tcp.read_buf(&mut received).await.unwrap() > 0);
        };
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        // RFC 6455 has this answer to the key above.
        assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        Self { tcp, received }
    }

    /// Sends bytes. The server may have ended the connection meanwhile.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.tcp.write_all(bytes).await;
    }

    /// Waits for the next frame of the server: opcode and payload; `None` once the connection has ended.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            let read = self.tcp.read_buf(&mut self.received);
            match timeout(LIMIT, read).await.expect("the server hangs") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = &self.received[..] else { return None };
        assert_eq!(first & 0x70, 0, "a reserved bit");
        assert_eq!(second & MASKED, 0, "a server does not mask");
        assert_eq!(first & FINAL, FINAL, "the server sends whole messages");
        let (length, header) = match (second & 0x7F, rest) {
            (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
            (126 | 127, _) => return None,
            (length, _) => (usize::from(length), 2),
        };
        let payload = self.received.get(header..header + length)?.to_vec();
        let opcode = first & 0x0F;
        self.received.drain(..header + length);
        Some((opcode, payload))
    }

    /// Waits for a pong; returns what it echoes.
    async fn pong(&mut self) -> Vec<u8> {
        loop {
            let (opcode, payload) = self.next().await.expect("a pong");
            assert_ne!(opcode, CLOSE, "{payload:?}");
            if opcode == PONG {
                return payload;
            }
        }
    }

    /// Waits until the server closes, answers that, and waits until the connection has ended.
    async fn ending(&mut self) -> Ending {
        let mut ending = Ending::Lost;
        while let Some((opcode, payload)) = self.next().await {
            assert_eq!(ending, Ending::Lost, "opcode {opcode} after a close");
            if opcode == CLOSE {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default();
                assert!(std::str::from_utf8(reason).is_ok(), "{reason:?}");
                ending = Ending::Closed(code);
                self.send(&whole(CLOSE, &payload)).await;
            }
        }
        ending
    }
}

/// Sends bytes on a connection of its own, and fails unless the server closes with this code.
async fn ends(served: &Served, what: &str, bytes: Vec<u8>, code: u16) {
    let mut client = RawClient::connect(served).await;
    client.send(&bytes).await;
    assert_eq!(client.ending().await, Ending::Closed(Some(code)), "{what}");
}

#[tokio::test]
async fn forbidden_frames_end_with_a_protocol_error() {
    let served = Served::start(&[]).await;
    let unmasked = |opcode: u8| vec![FINAL | opcode, 2, b'h', b'i'];
    for (what, bytes) in [
        ("text without a mask", unmasked(TEXT)),
        ("a ping without a mask", unmasked(PING)),
        ("a close without a mask", vec![FINAL | CLOSE, 2, 3, 0xE8]),
        ("the first reserved bit", frame(FINAL | 0x40 | TEXT, b"hi")),
        ("the second reserved bit", frame(FINAL | 0x20 | PING, b"")),
        ("the third reserved bit", frame(FINAL | 0x10 | CLOSE, b"")),
        ("all reserved bits", frame(FINAL | 0x70 | BINARY, b"hi")),
        ("a reserved data frame", whole(0x3, b"hi")),
        ("the last reserved data frame", whole(0x7, b"")),
        ("a reserved control frame", whole(0xB, b"")),
        ("the last reserved control frame", whole(0xF, b"hi")),
        ("a ping in parts", part(PING, b"hi")),
        ("a pong in parts", part(PONG, b"")),
        ("a close in parts", part(CLOSE, &1000_u16.to_be_bytes())),
        ("a ping of 126 bytes", whole(PING, &[7; 126])),
        ("a pong of 126 bytes", whole(PONG, &[7; 126])),
        ("a close of 126 bytes", close(1000, &[b'a'; 124])),
        ("a continuation of nothing", whole(CONTINUATION, b"hi")),
        ("a part of nothing", part(CONTINUATION, b"hi")),
        ("text within text", [part(TEXT, b"he"), whole(TEXT, b"llo")].concat()),
        ("text within binary", [part(BINARY, b"he"), part(TEXT, b"llo")].concat()),
        ("a close of one byte", whole(CLOSE, &[3])),
    ] {
        ends(&served, what, bytes, 1002).await;
    }
}

#[tokio::test]
async fn codes_that_must_not_be_sent_are_a_protocol_error_and_the_others_are_answered_with_themselves()
 {
    let served = Served::start(&[]).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
        ends(&served, &format!("the code {code}"), close(code, b"bye"), 1002).await;
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        ends(&served, &format!("the code {code}"), close(code, b"bye"), code).await;
    }
    ends(&served, "the longest reason", close(1000, &[b'a'; 123]), 1000).await;
    let mut client = RawClient::connect(&served).await;
    client.send(&whole(CLOSE, b"")).await;
    assert_eq!(client.ending().await, Ending::Closed(None));
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_with_its_code_and_what_is_valid_is_a_message() {
    let served = Served::start(&[]).await;
    let euro = "€".as_bytes();
    for (what, bytes, code) in [
        ("no UTF-8", whole(TEXT, &[0xFF, 0xFE]), 1007),
        ("a surrogate", whole(TEXT, &[0xED, 0xA0, 0x80]), 1007),
        ("an overlong slash", whole(TEXT, &[0xC0, 0xAF]), 1007),
        ("half a character", whole(TEXT, &euro[..2]), 1007),
        (
            "half a character in two parts",
            [part(TEXT, &euro[..1]), whole(CONTINUATION, &euro[1..2])].concat(),
            1007,
        ),
        ("a reason that is no UTF-8", close(1000, &[0xFF]), 1007),
        (
            "a character in two parts",
            [part(TEXT, &euro[..1]), whole(CONTINUATION, &euro[1..])].concat(),
            1008,
        ),
        ("text", whole(TEXT, b"hello"), 1008),
        ("no text", whole(TEXT, b""), 1008),
        ("binary that is no UTF-8", whole(BINARY, &[0xFF]), 1008),
        (
            "text in three parts",
            [part(TEXT, b""), part(CONTINUATION, b"a"), whole(CONTINUATION, b"")].concat(),
            1008,
        ),
    ] {
        ends(&served, what, bytes, code).await;
    }
}

#[tokio::test]
async fn what_is_too_long_ends_with_its_code_before_it_has_arrived() {
    let served = Served::start(&[]).await;
    let announced =
        |length: u64| [&[FINAL | BINARY, MASKED | 127][..], &length.to_be_bytes(), &MASK].concat();
    for (what, bytes) in [
        ("a frame of 1,025 bytes", whole(BINARY, &[0; 1_025])),
        ("a frame of a megabyte", whole(TEXT, &vec![b'a'; 1_000_000])),
        ("a frame of a terabyte", announced(1 << 40)),
        ("the longest frame", announced(u64::MAX >> 1)),
        (
            "two parts of 600 bytes",
            [part(TEXT, &[b'a'; 600]), part(CONTINUATION, &[b'a'; 600])].concat(),
        ),
    ] {
        ends(&served, what, bytes, 1009).await;
    }
    ends(&served, "a message of 1,024 bytes", whole(TEXT, &[b'a'; 1_024]), 1008).await;
}

#[tokio::test]
async fn pings_are_echoed_also_within_a_message_and_byte_by_byte() {
    let served = Served::start(&[]).await;
    let mut client = RawClient::connect(&served).await;
    for payload in [&b""[..], b"hi", &[0xFF; 125]] {
        client.send(&whole(PING, payload)).await;
        assert_eq!(client.pong().await, payload);
    }
    client.send(&whole(PONG, b"unsolicited")).await;
    client.send(&part(TEXT, b"he")).await;
    client.send(&whole(PING, b"within")).await;
    assert_eq!(client.pong().await, b"within");
    for byte in whole(PING, b"slow") {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.pong().await, b"slow");
    client.send(&whole(CONTINUATION, b"llo")).await;
    assert_eq!(client.ending().await, Ending::Closed(Some(1008)));
}

#[tokio::test]
async fn after_a_close_of_the_client_nothing_is_answered_but_the_close() {
    let served = Served::start(&[]).await;
    let mut client = RawClient::connect(&served).await;
    client.send(&[close(1000, b""), whole(PING, b"late"), whole(TEXT, b"late")].concat()).await;
    assert_eq!(client.ending().await, Ending::Closed(Some(1000)));
}

#[tokio::test]
async fn after_a_close_of_the_server_its_answer_ends_the_connection_and_so_does_silence() {
    let served = Served::start(&[]).await;
    let (mut polite, mut silent) =
        (RawClient::connect(&served).await, RawClient::connect(&served).await);
    // Both streams are open before the server stops.
    for client in [&mut polite, &mut silent] {
        assert_eq!(client.next().await.unwrap().0, TEXT);
    }
    served.server.stop.cancel();
    assert_eq!(polite.ending().await, Ending::Closed(Some(1001)));
    let (opcode, payload) = silent.next().await.unwrap();
    assert_eq!((opcode, payload.get(..2)), (CLOSE, Some(&1001_u16.to_be_bytes()[..])));
    assert_eq!(silent.next().await, None);
}

#[tokio::test]
async fn a_client_that_vanishes_within_a_frame_leaves_nothing_behind() {
    let served = Served::start(&[]).await;
    let mut client = RawClient::connect(&served).await;
    assert_eq!(client.next().await.unwrap().0, TEXT);
    client.send(&whole(TEXT, b"hello")[..5]).await;
    drop(client);
    crate::test_server::wait_until("the stream has ended", || {
        served.server.metric("allocator_api_streams") == 0.0
    })
    .await;
}
