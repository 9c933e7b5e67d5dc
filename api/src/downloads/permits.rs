//! The limited permits for concurrent downloads.
//!
//! A reader that takes less than [`MIN_CHUNKS`] in [`STALL_LIMIT`] loses its permit as soon as another download needs
//! one. So readers that do not read, or drip, cannot keep others from downloading, and are left alone while there is
//! room.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use runtime::client::ClientNetwork;
use tokio::time::Instant;

use crate::config::ApiConfig;

/// How long a reader may be too slow before its permit can be given to another download.
const STALL_LIMIT: Duration = Duration::from_secs(5);
/// Chunks that a reader has to take within [`STALL_LIMIT`]: 64 KiB a second.
const MIN_CHUNKS: u32 = 5;

/// Why there is no permit for a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPermit {
    /// All permits are taken, and every download makes progress.
    #[error("too many exports are being downloaded")]
    AllTaken,
    /// All permits of this client are taken.
    #[error("too many exports are being downloaded from this address")]
    AllOfClientTaken,
}

/// The permits of all downloads.
#[derive(Debug)]
pub(super) struct DownloadPermits {
    max: usize,
    max_per_client: usize,
    taken: Mutex<HeldPermits>,
    in_progress: IntGauge,
}

#[derive(Debug, Default)]
struct HeldPermits {
    next_number: u64,
    permits: Vec<HeldPermit>,
}

#[derive(Debug)]
struct HeldPermit {
    number: u64,
    client: ClientNetwork,
    /// `None` before the first bytes, while the file is being opened.
    pace: Option<Pace>,
}

/// How fast a reader takes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pace {
    last_chunk: Instant,
    /// Begin of the present period of [`STALL_LIMIT`].
    since: Instant,
    chunks: u32,
    /// Whether the reader was too slow in the period before.
    was_slow: bool,
}

impl Pace {
    fn start() -> Self {
        let now = Instant::now();
        Self { last_chunk: now, since: now, chunks: 0, was_slow: false }
    }

    fn is_slow(&self) -> bool {
        match self.since.elapsed() >= STALL_LIMIT {
            true => self.chunks < MIN_CHUNKS,
            false => self.was_slow,
        }
    }

    fn note_chunk(&mut self) {
        let is_slow = self.is_slow();
        let now = Instant::now();
        if now - self.since >= STALL_LIMIT {
            (self.since, self.chunks, self.was_slow) = (now, 0, is_slow);
        }
        self.last_chunk = now;
        self.chunks = self.chunks.saturating_add(1);
    }
}

/// A permit for one download; released when dropped.
#[derive(Debug)]
pub struct DownloadPermit {
    permits: Arc<DownloadPermits>,
    number: u64,
}

impl DownloadPermits {
    pub(super) fn new(config: &ApiConfig, in_progress: IntGauge) -> Self {
        Self {
            max: config.max_downloads,
            max_per_client: config.max_downloads_per_client,
            taken: Mutex::default(),
            in_progress,
        }
    }

    /// Takes a free permit, or one of a reader that is too slow.
    ///
    /// # Errors
    /// When all permits are taken, or all permits of this client.
    pub(super) fn try_acquire(
        self: &Arc<Self>,
        client: ClientNetwork,
    ) -> Result<DownloadPermit, NoPermit> {
        let mut taken = self.taken.lock();
        let of_client = taken.permits.iter().filter(|permit| permit.client == client).count();
        if client.is_known() && of_client >= self.max_per_client {
            taken.evict_slow(|permit| permit.client == client).ok_or(NoPermit::AllOfClientTaken)?;
        } else if taken.permits.len() >= self.max {
            taken.evict_slow(|_| true).ok_or(NoPermit::AllTaken)?;
        }
        let number = taken.next_number;
        taken.next_number += 1;
        taken.permits.push(HeldPermit { number, client, pace: None });
        self.report(&taken);
        Ok(DownloadPermit { permits: Arc::clone(self), number })
    }

    fn report(&self, taken: &HeldPermits) {
        self.in_progress.set(i64::try_from(taken.permits.len()).unwrap_or(i64::MAX));
    }
}

impl HeldPermits {
    /// Takes away the permit whose reader is too slow and took nothing for longest; `None` if no reader is too slow.
    fn evict_slow(&mut self, may_evict: impl Fn(&HeldPermit) -> bool) -> Option<()> {
        let slow = self.permits.iter().enumerate().filter_map(|(at, permit)| {
            let pace = permit.pace.filter(|pace| may_evict(permit) && pace.is_slow())?;
            Some((pace.last_chunk, at))
        });
        let (_, at) = slow.min()?;
        self.permits.swap_remove(at);
        Some(())
    }
}

impl DownloadPermit {
    /// Notes that the reader takes a chunk.
    ///
    /// # Errors
    /// When the permit was taken away because the reader was too slow.
    pub(super) fn note_chunk(&self) -> io::Result<()> {
        let mut taken = self.permits.taken.lock();
        let permit = taken.permits.iter_mut().find(|permit| permit.number == self.number);
        let permit = permit.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the reader was too slow, and others were waiting",
            )
        })?;
        permit.pace.get_or_insert_with(Pace::start).note_chunk();
        Ok(())
    }
}

impl Drop for DownloadPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        taken.permits.retain(|permit| permit.number != self.number);
        self.permits.report(&taken);
    }
}
