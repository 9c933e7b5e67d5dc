//! A segment: consecutive records of one partition in one file, written once.
//!
//! | part | bytes |
//! |---|---|
//! | header | a skippable frame of zstd: [`Header`] as JSON |
//! | records | a frame of zstd: each record's offset (8 bytes), the lengths of its key (4) and value (4), key, value |
//! | footer | a skippable frame of zstd: the number of records (8), their end (8), SHA-256 of everything before it (32) |
//!
//! Numbers are little-endian. `zstd -dc` gives the records. The file's name says its partition, its first position and
//! its end: `00003-00000000000000000000-00000000000000120000.segment.zst`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemas::{Offset, PartitionId, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LogName;
use crate::log::Record;

/// The layout that is written, and the only one that is read.
const FORMAT: u32 = 1;
const SUFFIX: &str = ".segment.zst";
const HEADER_MAGIC: u32 = 0x184D_2A5A;
const FOOTER_MAGIC: u32 = 0x184D_2A5F;
const FOOTER_BYTES: usize = 8 + 8 + 32;
/// Magic and length.
const FRAME_HEAD_BYTES: usize = 8;
const HEADER_MAX_BYTES: u32 = 64 * 1024;
/// More than Kafka takes of one record, unless it is told to.
const PART_MAX_BYTES: u32 = 64 << 20;
const RECORD_HEAD_BYTES: usize = 16;
/// Zstandard's own default.
const LEVEL: i32 = 3;
const BUFFER_BYTES: usize = 256 * 1024;

/// Which records a segment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Whose records.
    pub partition: PartitionId,
    /// The first.
    pub first: Position,
    /// After the last.
    pub end: Position,
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    /// The disk does not give it, or not now.
    #[error("{path}: {reason}", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, io::Error),
    /// It is not what was written.
    #[error("{path} is damaged: {reason}", path = .0.display(), reason = .1)]
    Damaged(PathBuf, String),
    /// It is of another log.
    #[error("{path} is of another log: {found}", path = .path.display())]
    OtherLog {
        /// Which file.
        path: PathBuf,
        /// Of which.
        found: LogName,
    },
}

/// What a segment says about itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    #[serde(flatten)]
    log: LogName,
    partition: u32,
    first: Position,
}

impl Segment {
    /// What a file's name says; `None` for a file that is no segment.
    pub(super) fn of(path: PathBuf) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        let mut numbers = stem.split('-').map(|number| number.parse::<u64>().ok());
        let (partition, first, end) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let partition = PartitionId(u32::try_from(partition).ok()?);
        let (first, end) = (Position(first), Position(end));
        (numbers.next().is_none() && first < end).then_some(Self { path, partition, first, end })
    }

    /// Whether it is of this log.
    pub(super) fn is_of(&self, log: &LogName) -> Result<(), SegmentFault> {
        let mut file = self.open_file()?;
        self.read_header(&mut file, log).map(drop)
    }

    /// Opens its records, once everything in it is found to be what was written.
    pub(super) fn open(&self, log: &LogName) -> Result<Records, SegmentFault> {
        let mut file = self.open_file()?;
        let length = self.check(&mut file)?;
        let header = self.read_header(&mut file, log)?;
        let records = BufReader::with_capacity(BUFFER_BYTES, file.take(length - header));
        let decoder = zstd::stream::read::Decoder::with_buffer(records);
        let decoder = decoder.map_err(|error| self.unreadable(error))?.single_frame();
        let (key, value) = (Vec::new(), Vec::new());
        Ok(Records { segment: self.clone(), next: self.first, decoder, key, value })
    }

    fn open_file(&self) -> Result<File, SegmentFault> {
        File::open(&self.path).map_err(|error| self.unreadable(error))
    }

    /// Compares the file with its footer; answers how many bytes come before that, and goes back to the start.
    fn check(&self, file: &mut File) -> Result<u64, SegmentFault> {
        let unreadable = |error| self.unreadable(error);
        let whole = file.metadata().map_err(unreadable)?.len();
        let footer_bytes = (FRAME_HEAD_BYTES + FOOTER_BYTES) as u64;
        let length =
            whole.checked_sub(footer_bytes).ok_or_else(|| self.damaged("it is too short"))?;
        let mut digest = Sha256::new();
        let mut before = BufReader::with_capacity(BUFFER_BYTES, Read::take(&mut *file, length));
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match before.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        drop(before);
        let mut footer = Vec::new();
        file.read_to_end(&mut footer).map_err(unreadable)?;
        let (count, end) = (self.end.0 - self.first.0, self.end);
        if footer != footer_frame(count, end, digest) {
            return Err(self.damaged("its content is not what its footer says"));
        }
        file.rewind().map_err(unreadable)?;
        Ok(length)
    }

    /// Reads the header, which has to be of this segment and this log; answers its length.
    fn read_header(&self, file: &mut File, log: &LogName) -> Result<u64, SegmentFault> {
        let mut head = [0; FRAME_HEAD_BYTES];
        file.read_exact(&mut head).map_err(|error| self.unreadable(error))?;
        let (magic, length) = (number(&head[..4]), number(&head[4..]));
        if magic != HEADER_MAGIC || length > HEADER_MAX_BYTES {
            return Err(self.damaged("it does not begin as a segment"));
        }
        let mut json = vec![0; length as usize];
        file.read_exact(&mut json).map_err(|error| self.unreadable(error))?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|error| self.damaged(&error.to_string()))?;
        if header.format != FORMAT {
            return Err(self.damaged(&format!("its format is {}, not {FORMAT}", header.format)));
        }
        if header.log != *log {
            return Err(SegmentFault::OtherLog { path: self.path.clone(), found: header.log });
        }
        if (header.partition, header.first) != (self.partition.0, self.first) {
            return Err(self.damaged("its name is not its own"));
        }
        Ok((FRAME_HEAD_BYTES + json.len()) as u64)
    }

    fn unreadable(&self, error: io::Error) -> SegmentFault {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.damaged("it ends early");
        }
        SegmentFault::Unreadable(self.path.clone(), error)
    }

    fn damaged(&self, reason: &str) -> SegmentFault {
        SegmentFault::Damaged(self.path.clone(), reason.to_owned())
    }
}

/// The records of a segment, one after the other.
pub(super) struct Records {
    segment: Segment,
    next: Position,
    decoder: zstd::stream::read::Decoder<'static, BufReader<io::Take<File>>>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Records {
    /// The next one; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, SegmentFault> {
        if self.next == self.segment.end {
            return Ok(None);
        }
        match self.read() {
            Ok(offset) if Position(offset.0) == self.next => {
                self.next = offset.next();
                Ok(Some(Record { offset, key: &self.key, value: &self.value }))
            }
            Ok(_) => Err(self.segment.damaged("a record is not in its place")),
            Err(error) => Err(self.segment.unreadable(error)),
        }
    }

    fn read(&mut self) -> io::Result<Offset> {
        let mut head = [0; RECORD_HEAD_BYTES];
        self.decoder.read_exact(&mut head)?;
        let (offset, lengths) = head.split_at(8);
        for (part, length) in [(&mut self.key, &lengths[..4]), (&mut self.value, &lengths[4..])] {
            let length = number(length);
            if length > PART_MAX_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            part.resize(length as usize, 0);
            self.decoder.read_exact(part)?;
        }
        Ok(Offset(long(offset)))
    }
}

/// A segment in the making: under another name until it is whole.
pub(super) struct SegmentWriter {
    part: PathBuf,
    dir: PathBuf,
    partition: PartitionId,
    first: Position,
    next: Position,
    /// Of records, before they are compressed.
    bytes: u64,
    encoder: zstd::stream::write::Encoder<'static, Hashing>,
}

impl SegmentWriter {
    /// Begins one with the record at `first`. What was left of an earlier attempt is overwritten.
    pub fn begin(
        dir: &Path,
        log: &LogName,
        partition: PartitionId,
        first: Position,
    ) -> io::Result<Self> {
        let part = dir.join(format!("{:05}-{:020}.part", partition.0, first.0));
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut hashing = Hashing { file, digest: Sha256::new() };
        let header = Header { format: FORMAT, log: log.clone(), partition: partition.0, first };
        hashing.write_all(&frame(HEADER_MAGIC, &serde_json::to_vec(&header)?))?;
        let mut encoder = zstd::stream::write::Encoder::new(hashing, LEVEL)?;
        encoder.include_checksum(true)?;
        let dir = dir.to_owned();
        Ok(Self { part, dir, partition, first, next: first, bytes: 0, encoder })
    }

    /// Adds the next record.
    pub fn push(&mut self, record: Record<'_>) -> io::Result<()> {
        let Record { offset, key, value } = record;
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a record of over 4 GiB");
        self.encoder.write_all(&offset.0.to_le_bytes())?;
        for part in [key, value] {
            let length = u32::try_from(part.len()).map_err(too_long)?;
            self.encoder.write_all(&length.to_le_bytes())?;
        }
        self.encoder.write_all(key)?;
        self.encoder.write_all(value)?;
        self.bytes += (RECORD_HEAD_BYTES + key.len() + value.len()) as u64;
        self.next = offset.next();
        Ok(())
    }

    /// How many bytes of records it has, before they are compressed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It is whole: it counts from now on.
    pub fn finish(self) -> io::Result<Segment> {
        let Self { part, dir, partition, first, next: end, encoder, .. } = self;
        let Hashing { mut file, digest } = encoder.finish()?;
        file.write_all(&footer_frame(end.0 - first.0, end, digest))?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let name = format!("{:05}-{:020}-{:020}{SUFFIX}", partition.0, first.0, end.0);
        let path = dir.join(name);
        std::fs::rename(part, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Segment { path, partition, first, end })
    }
}

/// Hashes what is written.
struct Hashing {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A frame that zstd skips.
fn frame(magic: u32, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    [&magic.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}

fn footer_frame(count: u64, end: Position, digest: Sha256) -> Vec<u8> {
    let content = [&count.to_le_bytes()[..], &end.0.to_le_bytes(), &digest.finalize()[..]].concat();
    frame(FOOTER_MAGIC, &content)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
