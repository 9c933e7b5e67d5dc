//! The output file: written under a temporary name until it is complete, and hashed while it is written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

const BUFFER_BYTES: usize = 256 * 1024;

/// A file being written; dropping it deletes it.
pub(crate) struct OutputFile {
    file: BufWriter<NamedTempFile>,
    digest: Sha256,
    bytes: u64,
}

/// A complete, synced file that has not been renamed yet.
pub(crate) struct PendingFile {
    file: NamedTempFile,
    /// In hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

impl OutputFile {
    /// Creates a temporary file next to `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .tempfile_in(parent_dir(path))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { file, digest: Sha256::new(), bytes: 0 })
    }

    /// Flushes and syncs the file.
    pub fn finish(self) -> io::Result<PendingFile> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        let sha256 = hex::encode(self.digest.finalize());
        Ok(PendingFile { file, sha256, bytes: self.bytes })
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PendingFile {
    /// Renames the file to `path`, replacing an existing one.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        self.file.persist(path).map_err(|error| error.error)?;
        File::open(parent_dir(path))?.sync_all()
    }
}

/// Returns the directory that contains a file.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
