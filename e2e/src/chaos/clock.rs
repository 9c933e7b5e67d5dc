//! Wrong clocks of single services, by Debian's `libfaketime`, which reads the offset from a file.
//!
//! The machine's clock and monotonic clocks are not changed. The library changes the time that librdkafka adds its timeouts
//! to, and not the clock by which glibc ends those waits. With a clock ahead, each wait lasts as long as after the machine's
//! clock has gone back by as much; with one behind, librdkafka asks for the time all the while instead of waiting.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::fault::Kind;
use crate::scenario;
use crate::service::Service;
use crate::stack::ServiceOverrides;
use crate::wait::eventually;

/// Timeout for an offset to take effect. The library reads the file once a second, and the machine may be busy.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(30);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Offsets below this cannot be distinguished from delays.
const TOLERANCE_SECONDS: i64 = 30;

/// The clocks of the second service of each kind.
#[derive(Debug)]
pub struct Clocks {
    dir: PathBuf,
    library: PathBuf,
}

impl Clocks {
    /// Creates clocks without offset.
    ///
    /// # Errors
    /// When `libfaketime` is not installed.
    pub fn new() -> Result<Self> {
        let library = library().context("libfaketime is missing: run `local/install faketime`")?;
        let clocks = Self { dir: scenario::new_dir("clocks")?, library };
        for kind in [Kind::Ingest, Kind::Processor, Kind::Api] {
            clocks.write(kind, 0)?;
        }
        Ok(clocks)
    }

    fn file(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.name())
    }

    fn write(&self, kind: Kind, seconds: i64) -> Result<()> {
        // Written by a rename, because the library may read the file at any time.
        let new = self.dir.join("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, self.file(kind))?)
    }

    /// The environment that gives the second service of each kind its clock.
    pub fn overrides(&self) -> HashMap<String, ServiceOverrides> {
        [Kind::Ingest, Kind::Processor, Kind::Api]
            .map(|kind| {
                let variable = |name: &str, value: String| (name.to_owned(), value);
                let environment = vec![
                    variable("LD_PRELOAD", self.library.display().to_string()),
                    variable("FAKETIME_TIMESTAMP_FILE", self.file(kind).display().to_string()),
                    variable("FAKETIME_CACHE_DURATION", "1".into()),
                    variable("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
                ];
                (
                    format!("{}-2", kind.name()),
                    ServiceOverrides { settings: Vec::new(), environment },
                )
            })
            .into()
    }

    /// Sets the clock offset of a kind's second service and waits until its log shows it.
    ///
    /// # Errors
    /// When the log does not show the offset in time.
    pub async fn set(&self, kind: Kind, service: &Service, seconds: i64) -> Result<()> {
        self.write(kind, seconds)?;
        let what = format!("the clock of {} is off by {seconds} s", service.name());
        eventually(&what, EFFECT_TIMEOUT, async || {
            let offset = clock_offset(service).await?;
            ensure!((offset - seconds).abs() < TOLERANCE_SECONDS, "the clock is off by {offset} s");
            Ok(())
        })
        .await
    }
}

/// The offset of a service's latest log line from this machine's clock, in seconds.
///
/// The header `Date` does not work: it is cached and does not go back with the clock.
async fn clock_offset(service: &Service) -> Result<i64> {
    let request = crate::http_client::builder().build()?.get(format!("{}/livez", service.url));
    request.timeout(RESPONSE_TIMEOUT).send().await?;
    let log = service.process.log()?;
    let line: Value = serde_json::from_str(log.lines().next_back().context("no log")?)?;
    let logged: Timestamp = line["timestamp"].as_str().context("no timestamp")?.parse()?;
    Ok(logged.as_second() - Timestamp::now().as_second())
}

/// Finds the library, which Debian installs in a directory of the machine's architecture.
fn library() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").ok()?;
    dirs.flatten()
        .map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
}
