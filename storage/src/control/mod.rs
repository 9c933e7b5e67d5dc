//! The control topic: a compacted topic that all services follow. Ingest and api read it, since they may have no store.
//!
//! It has five views: the definitions of budgets; the active log, which is the topic to which submissions go; the
//! fingerprint of the person secret; the revoked personal codes; and the operators' list of annulments.
//!
//! | file | owns |
//! |---|---|
//! | `budgets` | the catalog of definitions, and the pure rules for changing them |
//! | `secret` | comparing a process's person secret with the recorded fingerprint |
//! | `revocations` | the rule for revoking codes |
//! | `annulments` | changing the list of annulments |
//! | `kafka`, `sqlite` | the topic itself |

mod annulments;
mod budgets;
pub mod kafka;
mod revocations;
mod secret;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Budget, BudgetId, LogRef};
use tokio::sync::watch;

pub use annulments::{AnnulmentChangeError, AnnulmentRegisters};
pub use budgets::{
    Catalog, Change, ChangeRefused, Deletion, close, complete_reopening, define, define_if_absent,
    delete, forget, forgettable, freeze, freeze_checked,
};
pub use revocations::{CodeRevocations, RevokeError};
pub use secret::{SecretRecord, record_secret, wait_for_other_secret};

/// Interval at which loading is checked, in case it ends without a change.
const LOAD_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Bounds [`BudgetDefinitions::confirmed`].
pub const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(8);

/// Why the control topic was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlTopicError {
    /// The rules forbid the change.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The topic is unavailable, or the outcome is unknown: read it, or repeat the change.
    #[error("the control topic cannot be changed now: {0}")]
    Unavailable(String),
}

/// What became of the former definitions of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    /// They are in no file any more.
    Erased,
    /// Kafka keeps them until it compacts the control topic, which a later record makes possible.
    AwaitsCompaction,
}

/// The views of the control topic.
#[derive(Clone)]
pub struct ControlTopic {
    /// The definitions of budgets.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The log to which submissions go.
    pub active_log: Arc<dyn ActiveLog>,
    /// The fingerprint of the person secret.
    pub secret: Arc<dyn SecretRecord>,
    /// The revoked personal codes.
    pub revocations: Arc<dyn CodeRevocations>,
    /// The operators' list of annulments.
    pub annulments: Arc<dyn AnnulmentRegisters>,
}

impl ControlTopic {
    /// Creates the views of one topic.
    pub fn new(
        topic: impl BudgetDefinitions + ActiveLog + SecretRecord + CodeRevocations + AnnulmentRegisters,
    ) -> Self {
        let topic = Arc::new(topic);
        Self {
            definitions: Arc::clone(&topic) as _,
            active_log: Arc::clone(&topic) as _,
            secret: Arc::clone(&topic) as _,
            revocations: Arc::clone(&topic) as _,
            annulments: topic,
        }
    }
}

/// The definitions of budgets: an ordered history, changed by compare-and-set.
#[async_trait]
pub trait BudgetDefinitions: Send + Sync + 'static {
    /// Returns the latest known definitions. Only reads memory.
    fn catalog(&self) -> Arc<Catalog>;

    /// Whether the history has been read to its end once. Before that, a budget that is not in the catalog may exist.
    fn is_loaded(&self) -> bool;

    /// Reads the definitions from the history itself, as of a moment after this call: linearizable.
    ///
    /// Includes every change that anyone has got from here before, but maybe not yet one that [`change`](Self::change)
    /// has returned somewhere.
    ///
    /// # Errors
    /// When the history cannot be read within seconds.
    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError>;

    /// Subscribes to changes of the catalog.
    fn changes(&self) -> watch::Receiver<()>;

    /// Changes a definition: passes the current one to `decide` and writes its decision, excluding concurrent changes.
    /// Returns the resulting definition, which [`catalog`](Self::catalog) includes from then on.
    ///
    /// # Errors
    /// When `decide` refuses, this release does not understand the whole current definition, or the topic is
    /// unavailable.
    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError>;

    /// Deletes a definition if `decide` agrees, excluding concurrent changes. The id can be defined anew.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    async fn delete(
        &self,
        budget: &BudgetId,
        decide: &Deletion<'_>,
    ) -> Result<(), ControlTopicError>;

    /// Erases the former definitions of a budget, from all copies that this process reaches. Only the current one
    /// stays.
    ///
    /// # Errors
    /// When the topic is unavailable, or another process has the files in use for too long.
    async fn erase_former_definitions(
        &self,
        budget: &BudgetId,
    ) -> Result<Erasure, ControlTopicError>;
}

/// The announced active log: the topic to which submissions go. It only moves to later logs.
#[async_trait]
pub trait ActiveLog: Send + Sync + 'static {
    /// Whether the history has been read to its end once. Before that, and while only a newer release can read what is
    /// announced, a later log may be announced.
    fn is_loaded(&self) -> bool;

    /// Subscribes to the latest announced log; `None` while submissions go to the deployment's first log.
    fn subscribe(&self) -> watch::Receiver<Option<LogRef>>;

    /// Announces a log, to which submissions go from then on. Has no effect if it, or a later one, is announced
    /// already.
    ///
    /// # Errors
    /// When the topic is unavailable.
    async fn announce(&self, log: &LogRef) -> Result<(), ControlTopicError>;
}

/// Waits without limit until the control topic is loaded ([`ActiveLog::is_loaded`]).
pub async fn wait_until_loaded(active_log: &dyn ActiveLog) {
    let mut changes = active_log.subscribe();
    while !active_log.is_loaded() {
        let _ = tokio::time::timeout(LOAD_POLL_INTERVAL, changes.changed()).await;
    }
}
