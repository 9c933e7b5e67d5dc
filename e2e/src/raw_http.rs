//! A client connection without a library: thousands of readers fit into one program.

use anyhow::{Context, Result, bail, ensure};
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
        self.tcp.get_mut().write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<(u16, String)> {
        let (mut status, mut length, mut line) = (0, None, String::new());
        loop {
            line.clear();
            ensure!(self.tcp.read_line(&mut line).await? > 0, "the connection was closed");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            } else if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.get(..3).unwrap_or_default().parse()?;
            } else if let Some(bytes) = text.strip_prefix("content-length:") {
                length = Some(bytes.trim().parse()?);
            } else if text.starts_with("transfer-encoding:") {
                bail!("an answer without a length");
            }
        }
        let mut body = vec![0; length.context("no content-length")?];
        self.tcp.read_exact(&mut body).await?;
        Ok((status, String::from_utf8(body)?))
    }
}
