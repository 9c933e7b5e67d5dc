//! A spool: an unnamed temporary file with a stream of frames per bucket.
//!
//! Frames arrive in any order and are read bucket by bucket, in constant memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use schemas::buckets;

/// Bytes of a bucket that are buffered before they are written as one chunk.
const CHUNK_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = size_of::<u32>();

/// Byte frames by bucket.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    end: u64,
    streams: Vec<Stream>,
}

/// One bucket's frames: chunks in the file, then the unwritten buffer. No frame spans two chunks.
#[derive(Debug, Default)]
struct Stream {
    chunks: Vec<Range<u64>>,
    unwritten: Vec<u8>,
}

impl Spool {
    /// Creates an empty spool on the disk of `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let streams = buckets().map(|_| Stream::default()).collect();
        Ok(Self { file: tempfile::tempfile_in(dir)?, end: 0, streams })
    }

    /// Appends a frame, the concatenation of `fields`, to a bucket's stream.
    pub fn push(&mut self, bucket: u8, fields: &[&[u8]]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame of over 4 GiB");
        let length = fields.iter().map(|field| field.len()).sum::<usize>();
        let stream = &mut self.streams[usize::from(bucket)];
        stream.unwritten.extend(u32::try_from(length).map_err(too_long)?.to_le_bytes());
        fields.iter().for_each(|field| stream.unwritten.extend_from_slice(field));
        if stream.unwritten.len() >= CHUNK_BYTES {
            let end = self.end + stream.unwritten.len() as u64;
            self.file.write_all_at(&stream.unwritten, self.end)?;
            stream.chunks.push(self.end..end);
            stream.unwritten.clear();
            self.end = end;
        }
        Ok(())
    }

    /// Calls `visit` with each frame of a bucket, in order.
    pub fn for_each<E: From<io::Error>>(
        &self,
        bucket: u8,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Stream { chunks, unwritten } = &self.streams[usize::from(bucket)];
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.resize((chunk.end - chunk.start) as usize, 0);
            self.file.read_exact_at(&mut bytes, chunk.start)?;
            frames(&bytes).try_for_each(&mut visit)?;
        }
        frames(unwritten).try_for_each(visit)
    }
}

/// Splits a chunk into its frames.
fn frames(mut chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = chunk.split_first_chunk::<LENGTH_BYTES>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        chunk = rest;
        Some(frame)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames_of(spool: &Spool, bucket: u8) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut take = |frame: &[u8]| {
            frames.push(frame.to_vec());
            io::Result::Ok(())
        };
        spool.for_each(bucket, &mut take).unwrap();
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames_of_each_bucket_are_returned_in_order(
            frames in prop::collection::vec((0..4_u8, 0..40_000_usize), 0..60),
        ) {
            let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
            let mut expected = vec![Vec::new(); 4];
            for (number, (bucket, length)) in frames.into_iter().enumerate() {
                let frame = vec![number as u8; length];
                let (head, tail) = frame.split_at(length / 3);
                spool.push(bucket, &[head, tail]).unwrap();
                expected[usize::from(bucket)].push(frame);
            }
            for (bucket, expected) in (0..).zip(expected) {
                prop_assert!(frames_of(&spool, bucket) == expected);
            }
        }
    }
}
