//! A temporary file with a stream of frames for each bucket, so that what comes in any order is taken bucket by bucket,
//! in memory that does not grow with it. The file has no name, and nobody else can open it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use schemas::buckets;

/// So many bytes of a bucket are kept before they are written: a piece of its stream.
const PIECE_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = size_of::<u32>();

/// Frames of bytes, by bucket.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    end: u64,
    streams: Vec<Stream>,
}

/// One bucket's frames: pieces in the file, then what is not written yet. No frame is in two pieces.
#[derive(Debug, Default)]
struct Stream {
    pieces: Vec<Range<u64>>,
    unwritten: Vec<u8>,
}

impl Spool {
    /// An empty one on the disk that has `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let streams = buckets().map(|_| Stream::default()).collect();
        Ok(Self { file: tempfile::tempfile_in(dir)?, end: 0, streams })
    }

    /// Adds a frame, given in parts, to the end of a bucket's stream.
    pub fn push(&mut self, bucket: u8, parts: &[&[u8]]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame of over 4 GiB");
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let stream = &mut self.streams[usize::from(bucket)];
        stream.unwritten.extend(u32::try_from(length).map_err(too_long)?.to_le_bytes());
        parts.iter().for_each(|part| stream.unwritten.extend_from_slice(part));
        if stream.unwritten.len() >= PIECE_BYTES {
            let end = self.end + stream.unwritten.len() as u64;
            self.file.write_all_at(&stream.unwritten, self.end)?;
            stream.pieces.push(self.end..end);
            stream.unwritten.clear();
            self.end = end;
        }
        Ok(())
    }

    /// Gives each frame of a bucket, in order.
    pub fn each<E: From<io::Error>>(
        &self,
        bucket: u8,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Stream { pieces, unwritten } = &self.streams[usize::from(bucket)];
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.resize((piece.end - piece.start) as usize, 0);
            self.file.read_exact_at(&mut bytes, piece.start)?;
            frames(&bytes).try_for_each(&mut take)?;
        }
        frames(unwritten).try_for_each(take)
    }
}

/// The frames of a piece, which holds whole ones only.
fn frames(mut piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = piece.split_first_chunk::<LENGTH_BYTES>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        piece = rest;
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
        spool.each(bucket, &mut take).unwrap();
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_buckets_frames_come_back_in_their_order(
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
