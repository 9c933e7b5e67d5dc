//! Submission ids that ingest has seen lately, so that a repetition gets its first answer again.
//!
//! A convenience for clients, not the guard: when this memory fails or forgets, the fold still counts nobody twice.

pub mod memory;
pub mod redis;

use async_trait::async_trait;
use schemas::{BudgetId, Receipt, SubmissionId};

/// A submission that names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its budget.
    pub budget: BudgetId,
    /// Its name.
    pub submission: SubmissionId,
    /// A digest of what it says and who says it.
    pub digest: u64,
}

/// What is known of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: go on. The attempt is in flight from now on.
    First,
    /// It was accepted before, with this receipt.
    Repeat(Receipt),
    /// The same attempt is being handled at this moment.
    InFlight,
    /// The same name was used for something else.
    Reused,
}

/// Where ids rest.
#[async_trait]
pub trait Idempotency: Send + Sync + 'static {
    /// Looks attempts up and marks new ones as in flight: one answer each, in order. When the memory is away, all are
    /// [`Begun::First`].
    async fn begin(&self, attempts: &[Attempt]) -> Vec<Begun>;

    /// Remembers the receipts of attempts that were accepted, and forgets (`None`) those that were not.
    async fn finish(&self, outcomes: &[(Attempt, Option<Receipt>)]);
}
