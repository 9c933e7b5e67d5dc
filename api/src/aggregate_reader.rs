//! Reads aggregates for clients: fresh from memory, else along the tier chain, else memory's last answer.
//!
//! Also waits until a submission is counted ("at least my receipt").

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use runtime::client::ClientNetwork;
use schemas::{ReceiptProof, ReceiptSigner};
use storage::control::BudgetDefinitions;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::consistency::AtLeast;
use crate::log_ends::LogEnds;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::read_policy::{Tier, UpdateFeed};
use crate::tier_chain::{AnsweringTier, TierChain};
use crate::tiers::memory::{AgedAnswer, Memory, MemoryEntry};
use crate::wait_limits::WaitLimits;

/// How often a waiting reader queries the tiers while cache updates arrive, in case one was lost.
const POLL_INTERVAL_WITH_UPDATES: Duration = Duration::from_millis(250);
/// How often a waiting reader queries the tiers while no cache updates arrive.
const POLL_INTERVAL_WITHOUT_UPDATES: Duration = Duration::from_millis(25);

/// Which tier an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerSource {
    /// Memory; no other tier was queried.
    Memory,
    /// A tier behind memory.
    Tier(Tier),
    /// Memory, because no tier behind it answered.
    Stale,
}

/// An answer for a client.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The answer and its age.
    pub aged: AgedAnswer,
    /// Where the answer came from.
    pub source: AnswerSource,
}

/// Reads aggregates for clients.
pub struct AggregateReader {
    memory: Arc<Memory>,
    tier_chain: Arc<TierChain>,
    definitions: Arc<dyn BudgetDefinitions>,
    receipt_signer: ReceiptSigner,
    waits: WaitLimits,
    log_ends: Arc<LogEnds>,
    metrics: ApiMetrics,
}

impl AggregateReader {
    /// Creates a reader over `memory` and the tiers behind it.
    pub fn new(
        memory: Arc<Memory>,
        tier_chain: Arc<TierChain>,
        definitions: Arc<dyn BudgetDefinitions>,
        receipt_signer: ReceiptSigner,
        waits: WaitLimits,
        log_ends: Arc<LogEnds>,
        metrics: ApiMetrics,
    ) -> Self {
        Self { memory, tier_chain, definitions, receipt_signer, waits, log_ends, metrics }
    }

    /// Returns a budget's entry; `None` when there is no such budget.
    pub fn entry(&self, id: &str) -> Option<Arc<MemoryEntry>> {
        // Memory may still have the entry of a budget that was deleted a moment ago.
        let catalog = self.definitions.catalog();
        let budget = catalog.get(id)?;
        Some(self.memory.entry_or_insert(&budget.id))
    }

    /// Returns one budget's answer, if memory has a fresh one.
    pub fn read_memory(&self, entry: &MemoryEntry) -> Option<Reading> {
        let reading = self.fresh(entry)?;
        self.metrics.memory_hits.inc();
        Some(reading)
    }

    /// Reads one budget's answer.
    ///
    /// # Errors
    /// When no tier answers and memory is empty.
    pub async fn read(&self, entry: &Arc<MemoryEntry>) -> Result<Reading, NoAnswer> {
        let entries = std::slice::from_ref(entry);
        self.read_all(entries).await?.pop().ok_or(NoAnswer::Unavailable)
    }

    /// Reads several budgets' answers; those that are not fresh in memory are fetched together.
    ///
    /// # Errors
    /// When no tier answers for one of them and memory has nothing of it.
    pub async fn read_all(&self, entries: &[Arc<MemoryEntry>]) -> Result<Vec<Reading>, NoAnswer> {
        let answer = self.read_once(entries).await;
        self.count(entries, &answer);
        answer
    }

    /// Reads the budgets' answers once they count the submission.
    ///
    /// # Errors
    /// When the submission is not counted in time, too many readers wait, or there is no answer at all.
    pub async fn read_at_least(
        &self,
        entries: &[Arc<MemoryEntry>],
        at_least: AtLeast,
        client: ClientNetwork,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let answer = self.read_until_counted(entries, at_least, client).await;
        self.count(entries, &answer);
        answer
    }

    /// Counts memory's outcome for one client request, once per requested budget.
    fn count(&self, entries: &[Arc<MemoryEntry>], answer: &Result<Vec<Reading>, NoAnswer>) {
        let Ok(readings) = answer else {
            return self.metrics.memory_misses.inc_by(entries.len() as u64);
        };
        for reading in readings {
            match reading.source {
                AnswerSource::Memory => self.metrics.memory_hits.inc(),
                AnswerSource::Tier(_) => self.metrics.memory_misses.inc(),
                AnswerSource::Stale => self.metrics.memory_stale.inc(),
            }
        }
    }

    /// Takes fresh answers from memory and fetches the rest along the tier chain.
    async fn read_once(&self, entries: &[Arc<MemoryEntry>]) -> Result<Vec<Reading>, NoAnswer> {
        let mut readings: Vec<Option<Reading>> =
            entries.iter().map(|entry| self.fresh(entry)).collect();
        let missing: Vec<Arc<MemoryEntry>> = entries
            .iter()
            .zip(&readings)
            .filter(|(_, reading)| reading.is_none())
            .map(|(entry, _)| Arc::clone(entry))
            .collect();
        let mut fetched = self.fetch(&missing, None).await?.into_iter();
        for reading in readings.iter_mut().filter(|reading| reading.is_none()) {
            *reading = fetched.next();
        }
        Ok(readings.into_iter().flatten().collect())
    }

    async fn read_until_counted(
        &self,
        entries: &[Arc<MemoryEntry>],
        wanted: AtLeast,
        client: ClientNetwork,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let AtLeast { receipt, wait, .. } = wanted;
        let address = receipt.address;
        let first = self.read_once(entries).await?;
        if first.iter().any(|reading| reading.aged.answer.lacks_partition(address)) {
            return Err(NoAnswer::NoSuchPartition);
        }
        let term = first.iter().map(|reading| reading.aged.answer.totals().term).max();
        if let Some(readings) = self.if_counted(wanted, entries, first).await {
            return Ok(readings);
        }
        // A fresh answer in memory may still be a moment old: query the tiers before refusing.
        let query_tiers = async || {
            let readings = self.fetch(entries, Some(Instant::now())).await?;
            Ok(self.if_counted(wanted, entries, readings).await)
        };
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else {
            return match query_tiers().await? {
                Some(readings) => Ok(readings),
                None => self.if_constant(wanted, entries),
            };
        };
        if let Some(term) = term
            && self.if_constant(wanted, entries).is_err()
            && self.log_ends.is_far_beyond(address, term).await
        {
            return query_tiers().await?.ok_or(NoAnswer::BeyondLog);
        }
        let _permit = self.waits.try_acquire(self.best_proof(wanted, entries), client)?;
        let end = Instant::now() + wait;
        let mut changes: Vec<_> = entries.iter().map(|entry| entry.changes()).collect();
        while Instant::now() < end {
            let Ok(queried) = timeout_at(end, query_tiers()).await else { break };
            if let Some(readings) = queried? {
                return Ok(readings);
            }
            let next_query = end.min(Instant::now() + self.poll_interval());
            while timeout_at(next_query, any_change(&mut changes)).await.is_ok() {
                let changed = self.latest_readings(entries, AnswerSource::Memory)?;
                let counted = timeout_at(end, self.if_counted(wanted, entries, changed)).await;
                if let Ok(Some(readings)) = counted {
                    return Ok(readings);
                }
            }
        }
        self.if_constant(wanted, entries)
    }

    /// Returns the answers at the end of the wait for a receipt that anyone could have made up, if those that do not
    /// count the receipt are withheld.
    ///
    /// A withheld answer is the same whatever it counts, and neither its status nor the time it takes may tell made-up
    /// receipts what it counts.
    ///
    /// # Errors
    /// When an answer does not count the submission, and is shown or the receipt is signed for its budget.
    fn if_constant(
        &self,
        wanted: AtLeast,
        entries: &[Arc<MemoryEntry>],
    ) -> Result<Vec<Reading>, NoAnswer> {
        let readings = self.latest_readings(entries, AnswerSource::Memory)?;
        let is_constant = |Reading { aged, .. }: &Reading| {
            !self.may_tell(wanted, &aged.answer) || aged.answer.includes(wanted.receipt.address)
        };
        if readings.iter().all(is_constant) { Ok(readings) } else { Err(NoAnswer::NotYetVisible) }
    }

    /// Returns whether a reader may learn if an answer counts the receipt's record: everyone of results that are shown,
    /// and of withheld ones whoever submitted it to that budget.
    fn may_tell(&self, wanted: AtLeast, answer: &Answer) -> bool {
        let proof = || self.receipt_signer.proof(&answer.budget().id, wanted.receipt);
        !answer.is_withheld() || proof() == ReceiptProof::Signed
    }

    /// Returns what the receipt proves for any of the budgets.
    fn best_proof(&self, wanted: AtLeast, entries: &[Arc<MemoryEntry>]) -> ReceiptProof {
        let proves = |entry: &Arc<MemoryEntry>| {
            self.receipt_signer.proof(&entry.id, wanted.receipt) == ReceiptProof::Signed
        };
        if entries.iter().any(proves) { ReceiptProof::Signed } else { ReceiptProof::Unsigned }
    }

    /// Returns the readings if they show that the submission is counted. Withheld ones do to whoever has the signed
    /// receipt: the submission is that reader's own.
    ///
    /// A receipt does not name its budget, and each budget is published separately: one budget may be past the
    /// receipt while the submission's own budget is still shown without it. Their totals are committed together,
    /// though. So once any budget counts the receipt, the committed totals of all budgets are read, and nothing less
    /// is returned.
    async fn if_counted(
        &self,
        wanted: AtLeast,
        entries: &[Arc<MemoryEntry>],
        readings: Vec<Reading>,
    ) -> Option<Vec<Reading>> {
        let counts = |Reading { aged, .. }: &Reading| {
            self.may_tell(wanted, &aged.answer) && aged.answer.includes(wanted.receipt.address)
        };
        if readings.iter().all(counts) {
            return Some(readings);
        }
        if !readings.iter().any(counts) || !self.tier_chain.catch_up(entries).await {
            return None;
        }
        let readings = self.latest_readings(entries, AnswerSource::Tier(Tier::Summary)).ok()?;
        readings.iter().any(counts).then_some(readings)
    }

    async fn fetch(
        &self,
        entries: &[Arc<MemoryEntry>],
        not_before: Option<Instant>,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let answered = self.tier_chain.fetch(entries, not_before).await;
        entries.iter().zip(answered).map(|(entry, tier)| self.after_fetch(entry, tier)).collect()
    }

    /// Returns memory's answer after a fetch. Clients always get memory's answer, which never goes back.
    fn after_fetch(&self, entry: &MemoryEntry, tier: AnsweringTier) -> Result<Reading, NoAnswer> {
        let source = match tier {
            Ok(tier) => AnswerSource::Tier(tier),
            // Another fetch, or a breaker's probe, may have succeeded meanwhile.
            Err(_) if self.memory.fresh(entry).is_some() => AnswerSource::Memory,
            Err(_) => AnswerSource::Stale,
        };
        let latest = self.memory.latest(entry);
        let aged = latest.ok_or_else(|| tier.err().unwrap_or(NoAnswer::Unavailable))?;
        Ok(Reading { aged, source })
    }

    fn fresh(&self, entry: &MemoryEntry) -> Option<Reading> {
        let aged = self.memory.fresh(entry)?;
        Some(Reading { aged, source: AnswerSource::Memory })
    }

    fn latest_readings(
        &self,
        entries: &[Arc<MemoryEntry>],
        source: AnswerSource,
    ) -> Result<Vec<Reading>, NoAnswer> {
        let reading = |entry: &Arc<MemoryEntry>| {
            let aged = self.memory.latest(entry).ok_or(NoAnswer::Unavailable)?;
            Ok(Reading { aged, source })
        };
        entries.iter().map(reading).collect()
    }

    fn poll_interval(&self) -> Duration {
        match self.memory.update_feed() {
            UpdateFeed::LiveSince(_) => POLL_INTERVAL_WITH_UPDATES,
            UpdateFeed::Interrupted => POLL_INTERVAL_WITHOUT_UPDATES,
        }
    }
}

/// Waits until the answer of any entry has changed since the last call.
async fn any_change(changes: &mut [watch::Receiver<()>]) {
    // A entry is never dropped while it has readers, so the only outcome is a change.
    let changes = changes.iter_mut().map(|change| Box::pin(change.changed()));
    select_all(changes).await.0.unwrap_or_default();
}
