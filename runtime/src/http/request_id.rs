//! The id of a request: the client's own if it is valid, else a generated one.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The request and response header of the id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;

/// The id of a request, 1 to 64 characters of `[A-Za-z0-9._-]`. Handlers find it in the request's extensions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    // Inline, since every request has an id.
    bytes: [u8; MAX_LENGTH],
    length: u8,
}

impl RequestId {
    /// Takes the id from the request's headers, or generates one.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        headers
            .get(X_REQUEST_ID)
            .and_then(|value| Self::parse(value.as_bytes()))
            .unwrap_or_else(Self::generate)
    }

    /// Generates a unique id: a random prefix per process and a counter.
    pub(crate) fn generate() -> Self {
        static PROCESS: LazyLock<String> =
            LazyLock::new(|| hex::encode(&uuid::Uuid::new_v4().as_bytes()[..6]));
        static COUNT: AtomicU64 = AtomicU64::new(1);

        let mut digits = [0; 16];
        // Eight bytes fill sixteen digits.
        let _ =
            hex::encode_to_slice(COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes(), &mut digits);
        let leading_zeros = digits.iter().take_while(|digit| **digit == b'0').count();

        let mut id = Self { bytes: [0; MAX_LENGTH], length: 0 };
        id.push(PROCESS.as_bytes());
        id.push(b"-");
        id.push(digits.get(leading_zeros..).unwrap_or_default());
        id
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let is_valid =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_LENGTH || !text.iter().all(is_valid) {
            return None;
        }
        let mut id = Self { bytes: [0; MAX_LENGTH], length: 0 };
        id.push(text);
        Some(id)
    }

    /// Appends bytes up to the maximum length.
    fn push(&mut self, more: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.length));
        for (slot, byte) in free.zip(more) {
            *slot = *byte;
            self.length += 1;
        }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        let used = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(used).unwrap_or_default()
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RequestId({})", self.as_str())
    }
}
