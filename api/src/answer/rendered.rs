//! A rendered body, its ETag, and its compressed forms.

use std::io::{self, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use runtime::http::ContentCoding;

/// Below this size a body is not compressed: it fits into one packet with its headers anyway.
const MIN_COMPRESSED_BYTES: usize = 1024;
/// Good for text, and fast enough to compress each version of an answer once.
const BROTLI_QUALITY: u32 = 5;
/// The base-two logarithm of the window: larger than any answer.
const BROTLI_WINDOW: u32 = 18;
const BROTLI_BUFFER_BYTES: usize = 4096;
const ZSTD_LEVEL: i32 = 3;

/// A rendered body and its ETag. Each compressed form is made at its first use and shared by all later readers.
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
pub struct Representation<'a> {
    /// The bytes to send.
    pub body: &'a Bytes,
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
    pub fn plain(&self) -> Representation<'_> {
        let coding = ContentCoding::Identity;
        Representation { body: &self.body, etag: self.etag.clone(), coding }
    }

    /// Returns the form that the client of a request likes best.
    pub fn accepted_by(&self, request: &HeaderMap) -> Representation<'_> {
        if self.body.len() < MIN_COMPRESSED_BYTES {
            return self.plain();
        }
        let coding = ContentCoding::accepted(request, &ContentCoding::COMPRESSED);
        let forms = ContentCoding::COMPRESSED.iter().zip(&self.compressed);
        let form = forms.into_iter().find(|(form, _)| **form == coding).map(|(_, form)| form);
        let body = form.and_then(|form| {
            form.get_or_init(|| compress(coding, &self.body).ok().map(Bytes::from)).as_ref()
        });
        body.map_or_else(
            || self.plain(),
            |body| Representation { body, etag: coding.etag(&self.etag), coding },
        )
    }
}

fn compress(coding: ContentCoding, body: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        ContentCoding::Identity => Ok(body.to_vec()),
        ContentCoding::Gzip => Ok(page::gzip(body)),
        ContentCoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        ContentCoding::Brotli => {
            let out = Vec::with_capacity(body.len() / 3);
            let mut encoder = brotli::CompressorWriter::new(
                out,
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
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

    #[test]
    fn every_form_unpacks_to_the_same_body_and_has_its_own_etag() {
        let body = "a body that repeats itself. ".repeat(200);
        let rendered = Rendered::new(body.clone(), HeaderValue::from_static("\"v\""));
        let mut tags = HashSet::new();
        for accept in ["br", "zstd", "gzip", "identity"] {
            let form = rendered.accepted_by(&request(accept));
            assert_eq!(decompress(form.coding, form.body), body.as_bytes(), "{accept}");
            assert!(form.coding == ContentCoding::Identity || form.body.len() < body.len() / 5);
            assert!(tags.insert(form.etag), "{accept}");
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
