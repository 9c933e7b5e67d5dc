//! A segment: contiguous records of one partition in one immutable file.
//!
//! | part | bytes |
//! |---|---|
//! | header | a skippable zstd frame: [`Header`] as JSON |
//! | records | a zstd frame: each record's offset (8 bytes), the lengths of its key (4) and value (4), key, value |
//! | footer | a skippable zstd frame: the number of records (8), their end (8), SHA-256 of all bytes before it (32) |
//!
//! Numbers are little-endian. `zstd -dc` extracts the records. The file is named after its partition, first position
//! and end: `00003-00000000000000000000-00000000000000120000.segment.zst`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemas::{Offset, PartitionId, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LogName;
use crate::log::Record;

/// The version of the layout. No other version exists.
const FORMAT: u32 = 1;
const SUFFIX: &str = ".segment.zst";
const HEADER_MAGIC: u32 = 0x184D_2A5A;
const FOOTER_MAGIC: u32 = 0x184D_2A5F;
const FOOTER_BYTES: usize = 8 + 8 + 32;
/// Magic number and length of a skippable frame.
const FRAME_HEAD_BYTES: usize = 8;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Bounds a key or value. Kafka's default limit for a record is far below.
const MAX_PART_BYTES: u32 = 64 << 20;
const RECORD_HEAD_BYTES: usize = 16;
/// zstd's default.
const COMPRESSION_LEVEL: i32 = 3;
const BUFFER_BYTES: usize = 256 * 1024;

/// A segment's file, and the range of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file's path.
    pub path: PathBuf,
    /// The records' partition.
    pub partition: PartitionId,
    /// The first record's position.
    pub first: Position,
    /// The position after the last record.
    pub end: Position,
}

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    /// The file cannot be read, possibly only now.
    #[error("{path}: {reason}", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, io::Error),
    /// The file is not what was written.
    #[error("{path} is damaged: {reason}", path = .0.display(), reason = .1)]
    Damaged(PathBuf, String),
    /// The segment belongs to another log.
    #[error("{path} is of another log: {found}", path = .path.display())]
    OtherLog {
        /// The file's path.
        path: PathBuf,
        /// The log that the segment belongs to.
        found: LogName,
    },
}

/// The header of a segment.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    #[serde(flatten)]
    log: LogName,
    partition: u32,
    first: Position,
}

impl Segment {
    /// Parses a file's name; `None` if the file is not a segment.
    pub(super) fn from_path(path: PathBuf) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        let mut numbers = stem.split('-').map(|number| number.parse::<u64>().ok());
        let (partition, first, end) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let partition = PartitionId(u32::try_from(partition).ok()?);
        let (first, end) = (Position(first), Position(end));
        (numbers.next().is_none() && first < end).then_some(Self { path, partition, first, end })
    }

    /// Checks that the segment belongs to the log.
    pub(super) fn check_log(&self, log: &LogName) -> Result<(), SegmentFault> {
        let mut file = self.open_file()?;
        self.read_header(&mut file, log).map(drop)
    }

    /// Verifies the whole file, and opens its records.
    pub(super) fn open(&self, log: &LogName) -> Result<SegmentRecords, SegmentFault> {
        let mut file = self.open_file()?;
        let length = self.check(&mut file)?;
        let header = self.read_header(&mut file, log)?;
        let records = BufReader::with_capacity(BUFFER_BYTES, file.take(length - header));
        let decoder = zstd::stream::read::Decoder::with_buffer(records);
        let decoder = decoder.map_err(|error| self.unreadable(error))?.single_frame();
        let (key, value) = (Vec::new(), Vec::new());
        Ok(SegmentRecords { segment: self.clone(), next: self.first, decoder, key, value })
    }

    fn open_file(&self) -> Result<File, SegmentFault> {
        File::open(&self.path).map_err(|error| self.unreadable(error))
    }

    /// Verifies the file against its footer, and rewinds it. Returns the number of bytes before the footer.
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
            return Err(self.damaged("its content does not match its footer"));
        }
        file.rewind().map_err(unreadable)?;
        Ok(length)
    }

    /// Reads the header, and checks that it matches the file's name and the log. Returns the header's length.
    fn read_header(&self, file: &mut File, log: &LogName) -> Result<u64, SegmentFault> {
        let mut head = [0; FRAME_HEAD_BYTES];
        file.read_exact(&mut head).map_err(|error| self.unreadable(error))?;
        let (magic, length) = (number(&head[..4]), number(&head[4..]));
        if magic != HEADER_MAGIC || length > MAX_HEADER_BYTES {
            return Err(self.damaged("it has no segment header"));
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
            return Err(self.damaged("its name does not match its header"));
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

/// Reads a segment's records in order.
pub(super) struct SegmentRecords {
    segment: Segment,
    next: Position,
    decoder: zstd::stream::read::Decoder<'static, BufReader<io::Take<File>>>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl SegmentRecords {
    /// Reads the next record; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, SegmentFault> {
        if self.next == self.segment.end {
            return Ok(None);
        }
        match self.read() {
            Ok(offset) if Position(offset.0) == self.next => {
                self.next = offset.next();
                Ok(Some(Record { offset, key: &self.key, value: &self.value }))
            }
            Ok(_) => Err(self.segment.damaged("a record has an unexpected offset")),
            Err(error) => Err(self.segment.unreadable(error)),
        }
    }

    fn read(&mut self) -> io::Result<Offset> {
        let mut head = [0; RECORD_HEAD_BYTES];
        self.decoder.read_exact(&mut head)?;
        let (offset, lengths) = head.split_at(8);
        for (part, length) in [(&mut self.key, &lengths[..4]), (&mut self.value, &lengths[4..])] {
            let length = number(length);
            if length > MAX_PART_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            part.resize(length as usize, 0);
            self.decoder.read_exact(part)?;
        }
        Ok(Offset(long(offset)))
    }
}

/// Writes a segment, under a temporary name until it is complete.
pub(super) struct SegmentWriter {
    temporary_path: PathBuf,
    dir: PathBuf,
    partition: PartitionId,
    first: Position,
    next: Position,
    /// Size of the records, before compression.
    bytes: u64,
    encoder: zstd::stream::write::Encoder<'static, Hashing>,
}

impl SegmentWriter {
    /// Starts a segment whose first record is at `first`. Overwrites the file of an earlier attempt.
    pub fn begin(
        dir: &Path,
        log: &LogName,
        partition: PartitionId,
        first: Position,
    ) -> io::Result<Self> {
        let temporary_path = dir.join(format!("{:05}-{:020}.part", partition.0, first.0));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary_path)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut hashing = Hashing { file, digest: Sha256::new() };
        let header = Header { format: FORMAT, log: log.clone(), partition: partition.0, first };
        hashing.write_all(&frame(HEADER_MAGIC, &serde_json::to_vec(&header)?))?;
        let mut encoder = zstd::stream::write::Encoder::new(hashing, COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        let dir = dir.to_owned();
        Ok(Self { temporary_path, dir, partition, first, next: first, bytes: 0, encoder })
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

    /// Returns the size of the records, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the footer, syncs the file, and renames it: from then on the segment is part of the archive.
    pub fn finish(self) -> io::Result<Segment> {
        let Self { temporary_path, dir, partition, first, next: end, encoder, .. } = self;
        let Hashing { mut file, digest } = encoder.finish()?;
        file.write_all(&footer_frame(end.0 - first.0, end, digest))?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let name = format!("{:05}-{:020}-{:020}{SUFFIX}", partition.0, first.0, end.0);
        let path = dir.join(name);
        std::fs::rename(temporary_path, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Segment { path, partition, first, end })
    }
}

/// Writes to a file and hashes the written bytes.
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

/// Encodes a skippable zstd frame.
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
