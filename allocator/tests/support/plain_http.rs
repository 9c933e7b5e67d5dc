//! A client on a plain socket, which sends any bytes. No test uses all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a server may take to answer or to close.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A connection to a server.
pub struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("http://").to_owned();
        let stream = BufReader::new(open(&address));
        Self { address, stream }
    }

    /// Sends bytes. A server that has closed is seen when its response is read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Tells the server that nothing more is sent.
    pub fn finish(&mut self) {
        let _ = self.stream.get_mut().shutdown(Shutdown::Write);
    }

    /// Reads a response. `None` if the server has closed the connection instead.
    pub fn response(&mut self) -> Option<Response> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("the server neither answers nor closes"),
                Err(_) => return None,
            }
        }
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap();
        let mut response = Response { status, head, body: String::new() };
        let bytes = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; bytes];
        self.stream.read_exact(&mut body).unwrap();
        response.body = String::from_utf8(body).unwrap();
        Some(response)
    }

    /// Sends a request and reads its response. Connects again after the server has closed the connection.
    pub fn request(
        &mut self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if method != "GET" || !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let request = [request.as_bytes(), body].concat();
        self.send(&request);
        let response = self.response().unwrap_or_else(|| {
            self.stream = BufReader::new(open(&self.address));
            self.send(&request);
            self.response().unwrap()
        });
        if response.header("connection") == Some("close") {
            self.stream = BufReader::new(open(&self.address));
        }
        response
    }

    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request(("GET", path), headers, b"")
    }
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
