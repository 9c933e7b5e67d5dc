//! The fingerprint of the person secret: recorded once, by the first ingest, and compared by every later process.
//!
//! With another secret everyone is a new person: nobody finds their own allocation, and whoever submits again is
//! counted twice. No total and no audit shows that, so a process with another secret does not start.

use async_trait::async_trait;
use schemas::{PersonSecret, SecretFingerprint};
use tokio::sync::watch;

use super::ControlTopicError;
use crate::open_error::OpenError;
use crate::secret::SecretError;

/// The recorded fingerprint of the person secret. It never changes.
#[async_trait]
pub trait SecretRecord: Send + Sync + 'static {
    /// Subscribes to the recorded fingerprint; `None` while none is known.
    fn subscribe_secret(&self) -> watch::Receiver<Option<SecretFingerprint>>;

    /// Records a fingerprint if none is recorded, and returns the recorded one.
    ///
    /// # Errors
    /// When the topic is unavailable.
    async fn record_secret(
        &self,
        fingerprint: &SecretFingerprint,
    ) -> Result<SecretFingerprint, ControlTopicError>;
}

/// Records the fingerprint of a secret, or checks that it is the recorded one.
///
/// Data of a release that recorded none is taken to be of this secret.
///
/// # Errors
/// When another secret is recorded, or the topic is unavailable.
pub async fn record_secret(
    record: &dyn SecretRecord,
    person_secret: &PersonSecret,
) -> Result<(), OpenError> {
    let own = person_secret.fingerprint();
    let known = record.subscribe_secret().borrow().clone();
    let recorded = match known {
        Some(recorded) => recorded,
        None => record.record_secret(&own).await.map_err(|error| OpenError::Unavailable {
            backend: "the control topic",
            reason: error.to_string(),
        })?,
    };
    check(own, recorded)
}

/// Waits until another secret than this one is recorded, and returns the error. Records nothing.
///
/// For a process that only reads, and that serves before the control topic is loaded.
pub async fn wait_for_other_secret(
    record: &dyn SecretRecord,
    person_secret: &PersonSecret,
) -> OpenError {
    let own = person_secret.fingerprint();
    let mut recorded = record.subscribe_secret();
    loop {
        let known = recorded.borrow_and_update().clone();
        if let Some(Err(error)) = known.map(|known| check(own.clone(), known)) {
            return error;
        }
        if recorded.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn check(own: SecretFingerprint, recorded: SecretFingerprint) -> Result<(), OpenError> {
    if own == recorded { Ok(()) } else { Err(SecretError::Other { own, recorded }.into()) }
}
