//! Downloads of published exports: finding the file, a permit to download it in, and streaming it.

mod permits;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use runtime::client::ClientNetwork;
use schemas::BudgetId;
use schemas::job::ExportFormat;
use storage::exports::{Exports, PublishedExport};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use permits::DownloadPermits;
pub use permits::{DownloadPermit, NoPermit};

const CHUNK_BYTES: usize = 64 * 1024;
/// How long finding the newest export may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a download cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no permit for it.
    #[error(transparent)]
    NoPermit(#[from] NoPermit),
    /// The file system failed.
    #[error("the exports cannot be read now: {0}")]
    Io(#[from] io::Error),
}

/// Opens published exports, with limits on concurrent downloads.
pub struct Downloads {
    exports: Exports,
    permits: Arc<DownloadPermits>,
}

impl Downloads {
    /// Creates the downloads of a directory's exports.
    pub fn new(config: &ApiConfig, exports: Exports, metrics: &ApiMetrics) -> Self {
        Self { exports, permits: Arc::new(DownloadPermits::new(config, metrics.downloads.clone())) }
    }

    /// Opens a budget's newest export; `None` if there is none.
    ///
    /// The permit is taken first, so a hanging file system blocks a limited number of threads.
    ///
    /// # Errors
    /// When there is no permit, or the file system fails.
    pub async fn open_newest(
        &self,
        budget: &BudgetId,
        format: ExportFormat,
        client: ClientNetwork,
    ) -> Result<Option<(PublishedExport, DownloadPermit)>, DownloadError> {
        let (exports, id) = (self.exports.clone(), budget.clone());
        let permit = self.permits.try_acquire(client)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let newest = exports.open_newest(&id, format)?;
            Ok(newest.map(|newest| (newest, permit)))
        });
        let newest = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
        let newest = newest.map_err(io::Error::from)?.map_err(io::Error::from)?;
        newest.map_err(DownloadError::Io)
    }
}

/// Streams the file's first bytes. Holds the permit until the stream ends, or fails once the permit is taken away.
pub fn stream(
    file: File,
    bytes: u64,
    permit: DownloadPermit,
) -> impl Stream<Item = io::Result<Bytes>> {
    // From now on the reader can stall. Until now the permit could not be taken away.
    let _ = permit.note_chunk();
    try_unfold((file.take(bytes), permit), |(mut file, permit)| async move {
        permit.note_chunk()?;
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), (file, permit))))
    })
}
