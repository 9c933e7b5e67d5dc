//! The file that is written: under another name until it is whole, and hashed on the way.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

const BUFFER_BYTES: usize = 256 * 1024;

/// A file in the making: nothing is left of it if it is dropped.
pub(super) struct Output {
    part: BufWriter<NamedTempFile>,
    digest: Sha256,
    bytes: u64,
}

/// A file that is whole, on the disk, and not under its name yet.
pub(super) struct Whole {
    part: NamedTempFile,
    /// In hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

impl Output {
    /// Begins what is to be at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let part = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .tempfile_in(folder_of(path))?;
        let part = BufWriter::with_capacity(BUFFER_BYTES, part);
        Ok(Self { part, digest: Sha256::new(), bytes: 0 })
    }

    /// What was written is whole.
    pub fn finish(self) -> io::Result<Whole> {
        let part = self.part.into_inner().map_err(io::IntoInnerError::into_error)?;
        part.as_file().sync_all()?;
        let digest = self.digest.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Whole { part, sha256, bytes: self.bytes })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.part.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

impl Whole {
    /// Puts it under its name, in the place of what was there.
    pub fn put(self, path: &Path) -> io::Result<()> {
        self.part.persist(path).map_err(|error| error.error)?;
        File::open(folder_of(path))?.sync_all()
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
