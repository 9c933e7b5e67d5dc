//! The id of a request: the client's own if it is fit to be repeated, else a new one.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header in which an id comes and goes.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 64;

/// The id of a request, 1 to 64 characters of `[A-Za-z0-9._-]`. Handlers find it among the request's extensions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    // In place, because every request has one.
    bytes: [u8; LONGEST],
    length: u8,
}

impl RequestId {
    /// The id that a request brought, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .get(X_REQUEST_ID)
            .and_then(|value| Self::parse(value.as_bytes()))
            .unwrap_or_else(Self::unique)
    }

    /// An id that no other request has: a random part for the process and a count.
    pub(crate) fn unique() -> Self {
        static PROCESS: LazyLock<[u8; 12]> = LazyLock::new(|| {
            let mut text = [0; 12];
            let random = uuid::Uuid::new_v4();
            for (pair, byte) in text.chunks_exact_mut(2).zip(random.as_bytes()) {
                pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
            }
            text
        });
        static COUNT: AtomicU64 = AtomicU64::new(1);

        let mut id = Self { bytes: [0; LONGEST], length: 0 };
        id.push(&*PROCESS);
        id.push(b"-");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let digits = (u64::BITS - count.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            let nibble = (count >> (place * 4)) & 15;
            id.push(&[hex(u8::try_from(nibble).unwrap_or_default())]);
        }
        id
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > LONGEST || !text.iter().all(fit) {
            return None;
        }
        let mut id = Self { bytes: [0; LONGEST], length: 0 };
        id.push(text);
        Some(id)
    }

    /// Adds what fits.
    fn push(&mut self, more: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.length));
        for (place, byte) in free.zip(more) {
            *place = *byte;
            self.length += 1;
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        let used = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(used).unwrap_or_default()
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

fn hex(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + (nibble & 15) - 10,
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
