//! A rendered body, its ETag, and its compressed forms.

use std::io::{self, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use runtime::http::ContentCoding;
use tokio::sync::Semaphore;

/// Below this size a body is not compressed: it fits into one packet with its headers anyway.
const MIN_COMPRESSED_BYTES: usize = 1024;
/// The base-two logarithm of the window: larger than the answer of any one budget.
const BROTLI_WINDOW: u32 = 18;
const BROTLI_BUFFER_BYTES: usize = 4096;

/// From this size on, a body for one request is compressed in a thread for blocking work.
const MIN_BLOCKING_BYTES: usize = 16 * 1024;
/// How many large bodies for one request are compressed at the same time: others are sent as they are.
static LARGE_COMPRESSIONS: Semaphore = Semaphore::const_new(2);

/// Who gets a compressed form. For many readers a small one pays; one reader waits for it.
#[derive(Debug, Clone, Copy)]
enum Readers {
    Many,
    One,
}

impl Readers {
    const fn brotli_quality(self) -> u32 {
        match self {
            Self::Many => 5,
            Self::One => 1,
        }
    }

    const fn zstd_level(self) -> i32 {
        match self {
            Self::Many => 3,
            Self::One => 1,
        }
    }
}

/// A rendered body and its ETag. [`accepted_by`](Self::accepted_by) makes each compressed form at its first use, and
/// shares it with all later readers.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The JSON body.
    pub body: Bytes,
    /// The strong ETag, quoted.
    pub etag: HeaderValue,
    /// In the order of [`ContentCoding::COMPRESSED`]; `None` if compressing failed.
    compressed: [OnceLock<Option<Bytes>>; ContentCoding::COMPRESSED.len()],
}

/// The form of a body that a client gets.
#[derive(Debug)]
pub struct Representation {
    /// The bytes to send.
    pub body: Bytes,
    /// Their strong ETag.
    pub etag: HeaderValue,
    /// How they are compressed.
    pub coding: ContentCoding,
}

impl Rendered {
    /// Keeps a body with its ETag.
    pub fn new(body: impl Into<Bytes>, etag: HeaderValue) -> Self {
        Self { body: body.into(), etag, compressed: Default::default() }
    }

    /// Returns the body as it is.
    fn plain(&self) -> Representation {
        let coding = ContentCoding::Identity;
        Representation { body: self.body.clone(), etag: self.etag.clone(), coding }
    }

    fn form(&self, coding: ContentCoding, body: Option<Bytes>) -> Representation {
        body.map_or_else(
            || self.plain(),
            |body| Representation { body, etag: coding.etag(&self.etag), coding },
        )
    }

    /// Returns the coding of the form that the client of a request likes best.
    pub fn accepted_coding(&self, request: &HeaderMap) -> ContentCoding {
        if self.body.len() < MIN_COMPRESSED_BYTES {
            return ContentCoding::Identity;
        }
        ContentCoding::accepted(request, &ContentCoding::COMPRESSED)
    }

    /// Returns the form that the client of a request likes best.
    pub fn accepted_by(&self, request: &HeaderMap) -> Representation {
        let coding = self.accepted_coding(request);
        let forms = ContentCoding::COMPRESSED.iter().zip(&self.compressed);
        let form = forms.into_iter().find(|(form, _)| **form == coding).map(|(_, form)| form);
        let body = form.and_then(|form| {
            let make = || compress(coding, &self.body, Readers::Many).ok().map(Bytes::from);
            form.get_or_init(make).clone()
        });
        self.form(coding, body)
    }

    /// Compresses the body for one request alone, fast. Sent as it is while too many large bodies are being compressed.
    pub async fn compressed_once(&self, coding: ContentCoding) -> Representation {
        if coding == ContentCoding::Identity {
            return self.plain();
        }
        if self.body.len() < MIN_BLOCKING_BYTES {
            let made = compress(coding, &self.body, Readers::One);
            return self.form(coding, made.ok().map(Bytes::from));
        }
        let Ok(permit) = LARGE_COMPRESSIONS.try_acquire() else { return self.plain() };
        let plain = self.body.clone();
        let compressing = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also if the client has gone.
            let _permit = permit;
            compress(coding, &plain, Readers::One)
        });
        let made = compressing.await;
        self.form(coding, made.ok().and_then(Result::ok).map(Bytes::from))
    }
}

fn compress(coding: ContentCoding, body: &[u8], readers: Readers) -> io::Result<Vec<u8>> {
    match coding {
        ContentCoding::Identity => Ok(body.to_vec()),
        ContentCoding::Gzip => Ok(match readers {
            Readers::Many => page::gzip(body),
            Readers::One => page::gzip_fast(body),
        }),
        ContentCoding::Zstd => zstd::bulk::compress(body, readers.zstd_level()),
        ContentCoding::Brotli => {
            let out = Vec::with_capacity(body.len() / 3);
            let mut encoder = brotli::CompressorWriter::new(
                out,
                BROTLI_BUFFER_BYTES,
                readers.brotli_quality(),
                BROTLI_WINDOW,
            );
            encoder.write_all(body)?;
            Ok(encoder.into_inner())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read;

    use http::header::ACCEPT_ENCODING;

    use super::*;

    fn request(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accept))])
    }

    fn decompress(coding: ContentCoding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            ContentCoding::Identity => out.extend_from_slice(bytes),
            ContentCoding::Gzip => {
                flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
            }
            ContentCoding::Zstd => out = zstd::bulk::decompress(bytes, 1 << 20).unwrap(),
            ContentCoding::Brotli => {
                brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap();
            }
        }
        out
    }

    #[tokio::test]
    async fn every_form_unpacks_to_the_same_body_and_has_its_own_etag() {
        let body = "a body that repeats itself. ".repeat(200);
        let rendered = Rendered::new(body.clone(), HeaderValue::from_static("\"v\""));
        let mut tags = HashSet::new();
        for accept in ["br", "zstd", "gzip", "identity"] {
            let form = rendered.accepted_by(&request(accept));
            assert_eq!(decompress(form.coding, &form.body), body.as_bytes(), "{accept}");
            assert!(form.coding == ContentCoding::Identity || form.body.len() < body.len() / 5);
            assert!(tags.insert(form.etag.clone()), "{accept}");
            for repetitions in [1, 40] {
                let body = body.repeat(repetitions);
                let rendered = Rendered::new(body.clone(), rendered.etag.clone());
                let once =
                    rendered.compressed_once(rendered.accepted_coding(&request(accept))).await;
                assert_eq!(decompress(once.coding, &once.body), body.as_bytes(), "{accept}");
                assert_eq!((once.coding, &once.etag), (form.coding, &form.etag), "{accept}");
            }
        }
    }

    #[test]
    fn a_small_body_is_sent_as_it_is() {
        let rendered = Rendered::new("{}", HeaderValue::from_static("\"v\""));
        let form = rendered.accepted_by(&request("br, gzip, zstd"));
        assert_eq!((form.coding, form.etag), (ContentCoding::Identity, rendered.etag.clone()));
    }

    #[test]
    fn a_form_is_compressed_once() {
        let rendered = Rendered::new("x".repeat(5_000), HeaderValue::from_static("\"v\""));
        let first = rendered.accepted_by(&request("br")).body.as_ptr();
        assert_eq!(first, rendered.accepted_by(&request("br")).body.as_ptr());
    }
}
