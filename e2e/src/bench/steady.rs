//! Waits until the machine is idle before a measurement, and until a rate no longer rises.
//!
//! Under a new load Kafka's JVM compiles for half a minute, and Cassandra compacts for as long after a heavy load. Both
//! would take CPU time from the measurement.

use std::time::Duration;

use anyhow::{Context, Result};

use super::report::log_progress;

/// Duration of one measurement of a rate.
pub const WINDOW: Duration = Duration::from_secs(3);
const MAX_WINDOWS: usize = 20;
/// Normal variation of rates on a shared machine.
const NOISE: f64 = 1.05;

/// Consecutive windows without a better rate before the rate counts as steady.
const STEADY_WINDOWS: usize = 3;
/// Maximum CPU utilization of an idle machine.
const MAX_IDLE_UTILIZATION: f64 = 0.1;
const MAX_IDLE_WINDOWS: usize = 40;

/// Waits until the machine is idle. After the limit, prints a warning and continues.
///
/// # Errors
/// When the CPU times cannot be read.
pub async fn until_quiet() -> Result<()> {
    let mut busy = 1.0;
    for _ in 0..MAX_IDLE_WINDOWS {
        let before = cpu_time()?;
        tokio::time::sleep(WINDOW).await;
        let after = cpu_time()?;
        busy = 1.0 - (after.idle - before.idle) / (after.all - before.all);
        if busy < MAX_IDLE_UTILIZATION {
            return Ok(());
        }
    }
    log_progress(format!("the machine is not idle: {:.0} % CPU used", busy * 100.0));
    Ok(())
}

struct CpuTime {
    idle: f64,
    all: f64,
}

/// CPU time since boot, in ticks; see proc(5).
fn cpu_time() -> Result<CpuTime> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let cpu = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu")?;
    let ticks: Vec<f64> = cpu.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let idle = ticks.get(3..5).context("no idle time")?.iter().sum();
    // User time includes guest time already.
    Ok(CpuTime { idle, all: ticks.iter().take(8).sum() })
}

/// Measures windows until `STEADY_WINDOWS` in a row are not better than the best one.
///
/// # Errors
/// When a window cannot be measured.
pub async fn until_steady(mut window: impl AsyncFnMut() -> Result<f64>) -> Result<()> {
    let (mut best, mut not_improved) = (0.0, 0);
    for _ in 0..MAX_WINDOWS {
        let rate = window().await?;
        not_improved = if rate > best * NOISE { 0 } else { not_improved + 1 };
        best = rate.max(best);
        if not_improved == STEADY_WINDOWS {
            break;
        }
    }
    Ok(())
}
