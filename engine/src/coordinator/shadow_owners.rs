//! The owners of shadow partitions in this process. When their generation becomes the active one, the coordinator takes
//! their people instead of reading them again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use storage::store::PartitionRef;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::partition::PreparedPeople;

/// Longest time for an owner's last commit, after which its people are read from the store.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The running shadow owners, and the people of those that were just released.
#[derive(Debug, Default)]
pub struct ShadowOwners(Mutex<BTreeMap<PartitionRef, ShadowOwner>>);

#[derive(Debug)]
struct ShadowOwner {
    stop: CancellationToken,
    people: oneshot::Receiver<PreparedPeople>,
}

impl ShadowOwners {
    /// Registers an owner, which sends its people when it is released through `stop`.
    pub fn register(
        &self,
        id: PartitionRef,
        stop: CancellationToken,
    ) -> oneshot::Sender<PreparedPeople> {
        let (sender, people) = oneshot::channel();
        self.0.lock().insert(id, ShadowOwner { stop, people });
        sender
    }

    /// Releases an owner of this process, and takes its people. `None` if there is none, or it does not know everybody.
    pub async fn take(&self, id: PartitionRef) -> Option<PreparedPeople> {
        let ShadowOwner { stop, people } = self.0.lock().remove(&id)?;
        stop.cancel();
        tokio::time::timeout(RELEASE_TIMEOUT, people).await.ok()?.ok()
    }

    /// Drops the people of an owner that nobody has taken.
    pub fn forget(&self, id: PartitionRef) {
        self.0.lock().remove(&id);
    }
}
