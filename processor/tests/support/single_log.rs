//! A [`LogReaderOpener`] for deployments with one log, which is open already.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::LogRef;
use storage::log::{LogReader, LogReaderOpener};
use storage::open_error::OpenError;

/// Returns the same readers for every log.
pub struct SingleLogOpener {
    /// Reads the archive before the log, if there is one.
    pub with_archive: Arc<dyn LogReader>,
    pub without_archive: Arc<dyn LogReader>,
}

#[async_trait]
impl LogReaderOpener for SingleLogOpener {
    async fn open(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::clone(&self.with_archive))
    }

    async fn open_without_archive(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::clone(&self.without_archive))
    }
}
