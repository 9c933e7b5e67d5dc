//! Compression of pages and other answers.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses a body that many readers get.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    compress(body, Compression::default())
}

/// Compresses a body for one reader: faster, and a little larger.
pub fn gzip_fast(body: &[u8]) -> Vec<u8> {
    compress(body, Compression::fast())
}

fn compress(body: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), level);
    // Writing to a Vec cannot fail.
    let written = encoder.write_all(body);
    debug_assert!(written.is_ok());
    encoder.finish().unwrap_or_default()
}
