//! The embedded default on a disk that fills up: a small file system in memory, of its own, so that nobody else's disk
//! is touched.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;

use crate::embedded::Embedded;
use crate::load::Crowd;
use crate::scenario;
use crate::system::{Answer, send};
use crate::wait::eventually;
use crate::watch::{Tolerance, Watch};

const BUDGET: &str = "disk";
const PROBED: &str = "disk-probe";
const CATEGORIES: usize = 10;
const MEGABYTES: u32 = 24;
const NOTICED: Duration = Duration::from_secs(20);

/// A file system of a few megabytes; it goes with this program.
#[derive(Debug)]
struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    fn mount() -> Result<Self> {
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

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Writes until nothing more can be written.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        // Large pieces first, then the last bytes.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        let refused = fs::write(self.dir.join("probe"), [0; 8_192]);
        ensure!(refused.is_err(), "there is still room");
        fs::remove_file(self.dir.join("probe"))?;
        // What the failed piece and the probe gave back.
        while file.write_all(&[0; 4_096]).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

/// Fills the disk under load, twice, the second time with a kill while it is full, and expects that submissions are
/// refused meanwhile, that reads go on, and that everything is right afterwards. Gives the verdict's line.
///
/// # Errors
/// When it is not so, or a file system cannot be mounted.
pub async fn full() -> Result<String> {
    let disk = SmallDisk::mount()?;
    let logs = scenario::new_dir("embedded")?;
    let mut embedded = Embedded::start_on(&logs, disk.dir.join("data")).await?;
    embedded.system.define(BUDGET, CATEGORIES).await?;
    embedded.system.define(PROBED, CATEGORIES).await?;
    let load = Crowd::of(BUDGET, CATEGORIES).start(&embedded.system);
    let watch = Watch::start(&embedded.system, BUDGET, Tolerance::NoAnswer);
    load.goes_on_for(200).await?;

    for killed in [false, true] {
        disk.fill()?;
        eventually("submissions are refused", NOTICED, async || refused(&embedded).await).await?;
        let url = format!("{}/v1/budgets/{BUDGET}/aggregate", embedded.system.read_from(0));
        send(embedded.system.request(Method::GET, url)).await?.expect(200)?;
        if killed {
            embedded.service.process.kill()?;
        }
        disk.free()?;
        if killed {
            embedded.service.restart().await?;
        }
        load.goes_on_for(200).await?;
    }

    let freed = Instant::now();
    let ledger = load.stop().await?;
    let acknowledged = ledger.len();
    let seen = watch.seen().await?;
    ensure!(seen.went_back.is_empty() && seen.wrong.is_empty(), "readers saw {seen:?}");
    embedded.system.shows(BUDGET, &ledger.totals(CATEGORIES), NOTICED).await?;
    let recovered = freed.elapsed();
    // The same after a restart in peace, from disk alone.
    embedded.service.process.kill()?;
    embedded.service.restart().await?;
    embedded.system.shows(BUDGET, &ledger.totals(CATEGORIES), NOTICED).await?;
    no_alarm(&logs)?;
    Ok(format!(
        "CHAOS-DISK acked={acknowledged} repeated={} oracle_diff=0 went_back=0 recovered_s={:.1} \
         faults={{disk_full=2,kill=1}}",
        ledger.repeats,
        recovered.as_secs_f64()
    ))
}

/// A submission is refused, and as a problem that says so. It is to a budget that nobody counts.
async fn refused(embedded: &Embedded) -> Result<()> {
    let url = format!("{}/v1/budgets/{PROBED}/submissions", embedded.system.write_to(0));
    let body = json!({"person": "p-0", "allocation": {"c0": 100}});
    let answer: Answer = send(embedded.system.request(Method::POST, url).json(&body)).await?;
    answer.problem(503, "unavailable").map(|_| ())
}

fn no_alarm(logs: &Path) -> Result<()> {
    let log = fs::read_to_string(logs.join("allocator.log")).context("no log")?;
    let halted = log.lines().find(|line| line.contains("is halted") || line.contains("panicked"));
    halted.map_or(Ok(()), |line| Err(anyhow::anyhow!("{line}")))
}
