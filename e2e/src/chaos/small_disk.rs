//! A disk that is small enough to fill: a tmpfs of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::scenario;

const MEGABYTES: u32 = 24;

/// A file system of a few megabytes, unmounted when this program exits.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts the file system.
    ///
    /// # Errors
    /// When mounting is not permitted.
    pub fn mount() -> Result<Self> {
        let dir = scenario::new_dir("disk")?.join("mount");
        fs::create_dir(&dir)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={MEGABYTES}m"), "tmpfs"])
            .arg(&dir)
            .output()?;
        ensure!(
            mounted.status.success(),
            "the full-disk test mounts a small file system, which needs root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        scenario::at_exit("umount -l \"$1\"", &[&dir])?;
        Ok(Self { dir })
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fills the file system completely.
    ///
    /// # Errors
    /// When there is still free space.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        // Large chunks first, then the last bytes.
        for size in [1 << 20, 1 << 12, 1] {
            let chunk = vec![0; size];
            while file.write_all(&chunk).is_ok() {}
        }
        let probe = self.dir.join("probe");
        let written = fs::write(&probe, [0; 8_192]);
        ensure!(written.is_err(), "there is still free space");
        fs::remove_file(probe)?;
        // Fill the space that the failed chunk and the probe released.
        while file.write_all(&[0; 4_096]).is_ok() {}
        Ok(())
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// When the file system was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}
