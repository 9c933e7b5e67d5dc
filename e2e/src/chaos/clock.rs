//! The clock of single services: Debian's `libfaketime` stands between such a process and the system's clock, and reads
//! from a file by how much it is wrong. The machine's own clock, and clocks that only count, are left alone.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use reqwest::Client;
use serde_json::Value;

use super::fault::Kind;
use crate::scenario;
use crate::service::Service;
use crate::stack::Special;
use crate::wait::eventually;

/// How long a process may take to notice: the library looks into the file once a second.
const NOTICE: Duration = Duration::from_secs(5);
/// A step less than this is not told from delay.
const VISIBLE_SECONDS: i64 = 30;

/// The clocks of the second of each kind.
#[derive(Debug)]
pub struct Clocks {
    dir: PathBuf,
    library: PathBuf,
}

impl Clocks {
    /// Right clocks, that can be made wrong.
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
        // Never half a file: it is read at any moment.
        let new = self.dir.join("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, self.file(kind))?)
    }

    /// What the second of each kind needs to have such a clock.
    pub fn specials(&self) -> HashMap<String, Special> {
        [Kind::Ingest, Kind::Processor, Kind::Api]
            .map(|kind| {
                let variable = |name: &str, value: String| (name.to_owned(), value);
                let environment = vec![
                    variable("LD_PRELOAD", self.library.display().to_string()),
                    variable("FAKETIME_TIMESTAMP_FILE", self.file(kind).display().to_string()),
                    variable("FAKETIME_CACHE_DURATION", "1".into()),
                    variable("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
                ];
                (format!("{}-2", kind.name()), Special { settings: Vec::new(), environment })
            })
            .into()
    }

    /// Sets the clock of a kind's second wrong by so many seconds, and waits until what it writes says so.
    ///
    /// # Errors
    /// When it does not.
    pub async fn set(&self, kind: Kind, service: &Service, seconds: i64) -> Result<()> {
        self.write(kind, seconds)?;
        let what = format!("the clock of {} is off by {seconds} s", service.name());
        eventually(&what, NOTICE, async || {
            let off = offset(service).await?;
            ensure!((off - seconds).abs() < VISIBLE_SECONDS, "it is off by {off} s");
            Ok(())
        })
        .await
    }
}

/// By how many seconds the latest line of a service's log is ahead of this machine's clock. Not the `Date` of an answer:
/// that one is kept until a clock that went back has come so far again.
async fn offset(service: &Service) -> Result<i64> {
    let request = Client::new().get(format!("{}/livez", service.url));
    request.timeout(Duration::from_secs(2)).send().await?;
    let log = service.process.log()?;
    let line: Value = serde_json::from_str(log.lines().next_back().context("no log")?)?;
    let theirs: Timestamp = line["timestamp"].as_str().context("no timestamp")?.parse()?;
    Ok(theirs.as_second() - Timestamp::now().as_second())
}

/// Debian keeps it in a folder of the machine's architecture.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
}
