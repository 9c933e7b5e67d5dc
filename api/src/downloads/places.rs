//! The limited places for concurrent downloads.
//!
//! A reader that takes no bytes for [`STALL_LIMIT`] loses its place as soon as another download needs one. So readers
//! that do not read cannot keep others from downloading, and slow readers are left alone while there is room.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::client_network::ClientNetwork;
use crate::config::ApiConfig;

/// How long a reader may take no bytes before its place can be given to another download.
const STALL_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no place for a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// All places are taken, and every download makes progress.
    #[error("too many exports are being downloaded")]
    AllTaken,
    /// All places of this client are taken.
    #[error("too many exports are being downloaded from this address")]
    AllOfClientTaken,
}

/// The places of all downloads.
#[derive(Debug)]
pub(super) struct DownloadPlaces {
    max: usize,
    max_per_client: usize,
    taken: Mutex<TakenPlaces>,
    in_progress: IntGauge,
}

#[derive(Debug, Default)]
struct TakenPlaces {
    next_number: u64,
    places: Vec<TakenPlace>,
}

#[derive(Debug)]
struct TakenPlace {
    number: u64,
    client: ClientNetwork,
    /// When the reader last took bytes; `None` before the first ones, while the file is being opened.
    progress: Option<Instant>,
}

/// A place for one download; released when dropped.
#[derive(Debug)]
pub struct DownloadPlace {
    places: Arc<DownloadPlaces>,
    number: u64,
}

impl DownloadPlaces {
    pub(super) fn new(config: &ApiConfig, in_progress: IntGauge) -> Self {
        Self {
            max: config.max_downloads,
            max_per_client: config.max_downloads_per_client,
            taken: Mutex::default(),
            in_progress,
        }
    }

    /// Takes a free place, or one of a reader that has stalled.
    ///
    /// # Errors
    /// When all places are taken, or all places of this client.
    pub(super) fn try_take(
        self: &Arc<Self>,
        client: ClientNetwork,
    ) -> Result<DownloadPlace, NoPlace> {
        let mut taken = self.lock();
        let of_client = taken.places.iter().filter(|place| place.client == client).count();
        if client.is_known() && of_client >= self.max_per_client {
            taken.evict_stalled(|place| place.client == client).ok_or(NoPlace::AllOfClientTaken)?;
        } else if taken.places.len() >= self.max {
            taken.evict_stalled(|_| true).ok_or(NoPlace::AllTaken)?;
        }
        let number = taken.next_number;
        taken.next_number += 1;
        taken.places.push(TakenPlace { number, client, progress: None });
        self.report(&taken);
        Ok(DownloadPlace { places: Arc::clone(self), number })
    }

    fn report(&self, taken: &TakenPlaces) {
        self.in_progress.set(i64::try_from(taken.places.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, TakenPlaces> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenPlaces {
    /// Takes away the place that has stalled for longest; `None` if none has.
    fn evict_stalled(&mut self, may_evict: impl Fn(&TakenPlace) -> bool) -> Option<()> {
        let stalled = self.places.iter().enumerate().filter_map(|(at, place)| {
            let progress = place.progress.filter(|_| may_evict(place))?;
            (progress.elapsed() >= STALL_LIMIT).then_some((progress, at))
        });
        let (_, at) = stalled.min()?;
        self.places.swap_remove(at);
        Some(())
    }
}

impl DownloadPlace {
    /// Notes that the reader takes bytes.
    ///
    /// # Errors
    /// When the place was taken away because the reader had stalled.
    pub(super) fn note_progress(&self) -> io::Result<()> {
        let mut taken = self.places.lock();
        let place = taken.places.iter_mut().find(|place| place.number == self.number);
        let place = place.ok_or_else(|| {
            io::Error::new(io::ErrorKind::TimedOut, "the reader stalled, and others were waiting")
        })?;
        place.progress = Some(Instant::now());
        Ok(())
    }
}

impl Drop for DownloadPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.places.retain(|place| place.number != self.number);
        self.places.report(&taken);
    }
}
