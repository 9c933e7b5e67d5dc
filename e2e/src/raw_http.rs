//! A client connection without a library: thousands of readers fit into one program.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection that requests follow each other on.
#[derive(Debug)]
pub struct Connection {
    host: String,
    tcp: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to the host of a URL.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(url: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").to_owned();
        let tcp = TcpStream::connect(&host).await.context("no connection")?;
        Ok(Self { host, tcp: BufReader::new(tcp) })
    }

    /// Reads a path, and returns the status and the body.
    ///
    /// # Errors
    /// When there is no complete answer, or it is not text of a known length.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<(u16, String)> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let answer = self.send(&request).await?;
        Ok((answer.status, answer.body))
    }

    /// Sends bytes as they are, which need not be a valid request, and returns the answer.
    ///
    /// # Errors
    /// When there is no complete answer, or it is not text of a known length.
    pub async fn send(&mut self, request: &str) -> Result<Answer> {
        self.tcp.get_mut().write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        let (mut head, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            ensure!(self.tcp.read_line(&mut line).await? > 0, "the connection was closed");
            if line.trim_end().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let status = head.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3));
        let status = status.with_context(|| format!("no status: {head}"))?.parse()?;
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").context("no content-length")?.parse()?;
        let mut body = vec![0; length];
        self.tcp.read_exact(&mut body).await?;
        answer.body = String::from_utf8(body)?;
        Ok(answer)
    }
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}
