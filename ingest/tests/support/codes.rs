//! A store of one-time codes in memory that fails on demand.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{CodeHolder, KeyedHash};
use storage::one_time_codes::memory::MemoryOneTimeCodes;
use storage::one_time_codes::{CodesUnavailable, IssueOutcome, OneTimeCodes};

#[derive(Default)]
pub struct FakeCodes {
    codes: MemoryOneTimeCodes,
    /// Slots that codes were stored in.
    pub slots: Mutex<HashSet<KeyedHash>>,
    pub failing: AtomicBool,
}

impl FakeCodes {
    fn check(&self) -> Result<(), CodesUnavailable> {
        match self.failing.load(Ordering::Relaxed) {
            true => Err(CodesUnavailable("failing".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl OneTimeCodes for FakeCodes {
    async fn issue(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
    ) -> Result<IssueOutcome, CodesUnavailable> {
        self.check()?;
        self.slots.lock().insert(holder.slot);
        self.codes.issue(holder, code).await
    }

    async fn redeem(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
        client: Option<&KeyedHash>,
    ) -> Result<bool, CodesUnavailable> {
        self.check()?;
        self.codes.redeem(holder, code, client).await
    }
}
