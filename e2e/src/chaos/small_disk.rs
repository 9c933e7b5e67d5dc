//! A disk that can be filled: a small file system in memory, of its own, so that nobody else's disk is touched.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::scenario;

const MEGABYTES: u32 = 24;

/// A file system of a few megabytes; it goes with this program.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// When that is not allowed.
    pub fn mount() -> Result<Self> {
        let dir = scenario::new_dir("disk")?.join("mount");
        fs::create_dir(&dir)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={MEGABYTES}m"), "tmpfs"])
            .arg(&dir)
            .output()?;
        ensure!(
            mounted.status.success(),
            "a full disk needs a small file system, and that needs root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        scenario::at_exit("umount -l \"$1\"", &[&dir])?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes until nothing more can be written.
    ///
    /// # Errors
    /// When there is still room.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        // Large pieces first, then the last bytes.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        let probe = self.dir.join("probe");
        let refused = fs::write(&probe, [0; 8_192]);
        ensure!(refused.is_err(), "there is still room");
        fs::remove_file(probe)?;
        // What the failed piece and the probe gave back.
        while file.write_all(&[0; 4_096]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it was not filled.
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
