//! The only log of a deployment, opened already.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::LogRef;
use storage::log::{LogReader, LogReaders};
use storage::opening::OpenError;

pub struct OneLog {
    /// With its archive before it, if there is one.
    pub log: Arc<dyn LogReader>,
    pub alone: Arc<dyn LogReader>,
}

#[async_trait]
impl LogReaders for OneLog {
    async fn open(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::clone(&self.log))
    }

    async fn open_alone(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::clone(&self.alone))
    }
}
