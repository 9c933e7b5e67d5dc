//! A client of server-sent events on a plain socket: ten thousand of them fit into one thread.
//!
//! Understands the chunked transfer encoding and the fields `event`, `id` and `data`, as the services send them.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Larger than the usual event, so that one is one read.
const READ_BUFFER_BYTES: usize = 4096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The name.
    pub name: String,
    /// The id to resume from.
    pub id: Option<String>,
    /// The data.
    pub data: String,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    tcp: TcpStream,
    received: Vec<u8>,
    chunks: Chunks,
    /// The decoded text from the next event on.
    text: Vec<u8>,
}

impl EventStream {
    /// Opens a stream, which resumes after `last_event_id`.
    ///
    /// # Errors
    /// When the answer is no stream.
    pub async fn open(url: &str, path: &str, last_event_id: Option<&str>) -> Result<Self> {
        let host = url.trim_start_matches("http://");
        let mut tcp = TcpStream::connect(host).await.context("no connection")?;
        let resume =
            last_event_id.map_or(String::new(), |version| format!("last-event-id: {version}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{resume}\r\n"
        );
        tcp.write_all(request.as_bytes()).await?;
        let mut received = Vec::with_capacity(READ_BUFFER_BYTES);
        let head_bytes = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(tcp.read_buf(&mut received).await? > 0, "the connection was closed");
        };
        let head = String::from_utf8_lossy(&received[..head_bytes]).to_ascii_lowercase();
        ensure!(
            head.starts_with("http/1.1 200 ")
                && head.contains("content-type: text/event-stream")
                && head.contains("transfer-encoding: chunked"),
            "the answer is no stream: {}",
            String::from_utf8_lossy(&received)
        );
        let mut stream = Self { tcp, received, chunks: Chunks::default(), text: Vec::new() };
        stream.chunks.decode(&stream.received[head_bytes..], &mut stream.text)?;
        Ok(stream)
    }

    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream ends or is malformed.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = take_event(&mut self.text)? {
                return Ok(event);
            }
            self.received.clear();
            ensure!(self.tcp.read_buf(&mut self.received).await? > 0, "the stream ended");
            self.chunks.decode(&self.received, &mut self.text)?;
        }
    }
}

/// The decoder of the chunked transfer encoding.
#[derive(Debug)]
enum Chunks {
    /// In the line with the size of the next chunk, or in the line break before it.
    Size(Vec<u8>),
    /// In a chunk of which this many bytes are left.
    Data(usize),
    /// Behind the last chunk.
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl Chunks {
    fn decode(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> Result<()> {
        while !bytes.is_empty() {
            match self {
                Self::Size(line) => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        line.extend_from_slice(bytes);
                        return Ok(());
                    };
                    line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    let size = std::str::from_utf8(line)?.trim();
                    if size.is_empty() {
                        line.clear();
                        continue;
                    }
                    let size = usize::from_str_radix(size, 16).context("not a chunk's size")?;
                    *self = if size == 0 { Self::End } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let taken = bytes.len().min(*left);
                    body.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    *left -= taken;
                    if *left == 0 {
                        *self = Self::default();
                    }
                }
                Self::End => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Takes the next complete event from the text. Blocks without a name, such as the reconnection delay, are skipped.
fn take_event(text: &mut Vec<u8>) -> Result<Option<Event>> {
    while let Some(end) = text.windows(2).position(|window| window == b"\n\n") {
        let rest = text.split_off(end + 2);
        let block = std::mem::replace(text, rest);
        let block = std::str::from_utf8(&block)?;
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
            block.lines().find_map(value)
        };
        if let Some(name) = field("event") {
            let data = field("data").unwrap_or_default();
            return Ok(Some(Event { name, id: field("id"), data }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "21\r\nretry: 5120\n\nevent: aggregate\nid:\r\n12\r\n 7\ndata: {\"a\":1}\n\n\r\n\
                        16\r\nevent: beat\ndata: {}\n\n\r\n0\r\n\r\n";

    #[test]
    fn events_are_the_same_however_their_bytes_arrive() {
        for size in 1..=BODY.len() {
            let (mut chunks, mut text, mut events) = (Chunks::default(), Vec::new(), Vec::new());
            for bytes in BODY.as_bytes().chunks(size) {
                chunks.decode(bytes, &mut text).unwrap();
                while let Some(event) = take_event(&mut text).unwrap() {
                    events.push((event.name, event.id, event.data));
                }
            }
            let expected = [
                ("aggregate".to_owned(), Some("7".to_owned()), "{\"a\":1}".to_owned()),
                ("beat".to_owned(), None, "{}".to_owned()),
            ];
            assert_eq!(events, expected, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn a_size_that_is_no_number_is_an_error() {
        assert!(Chunks::default().decode(b"data: {}\n", &mut Vec::new()).is_err());
    }
}
