//! One-time codes in the memory of a single process, bounded in number. A restart loses them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use runtime::limits::{
    Algorithm, Charge, ClientClass, LocalCounters, OutageMode, PersonHash, Policy, Quota, Scope,
    SubjectKey, Unit, is_within_all,
};
use schemas::{
    CODE_LIFETIME, CodeHolder, KeyedHash, MAIL_LIMITS, MAX_CODE_TRIES, MAX_CODE_TRIES_OF_CLIENT,
};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::{CodesUnavailable, IssueOutcome, OneTimeCodes};

/// Default maximum number of codes at a time, about 300 bytes each.
const MAX_CODES: usize = 100_000;

/// One-time codes in memory.
pub struct MemoryOneTimeCodes {
    codes: Mutex<Codes>,
    max_codes: usize,
    mails: LocalCounters,
    mail_policies: Vec<Arc<Policy>>,
}

/// Codes by their slot.
#[derive(Default)]
struct Codes {
    by_slot: HashMap<KeyedHash, StoredCode>,
    /// Expiry and slot of each code.
    by_expiry: BTreeSet<(Instant, [u8; 32])>,
}

impl Codes {
    /// Stores a code in place of an earlier one. If the store is full, evicts the code that expires first.
    fn insert(&mut self, slot: KeyedHash, stored: StoredCode, max_codes: usize) {
        self.remove(&slot);
        while self.by_slot.len() >= max_codes {
            let Some((_, evicted)) = self.by_expiry.pop_first() else { break };
            self.by_slot.remove(&KeyedHash::from_bytes(evicted));
        }
        self.by_expiry.insert((stored.expires_at, *slot.as_bytes()));
        self.by_slot.insert(slot, stored);
    }

    fn remove(&mut self, slot: &KeyedHash) {
        if let Some(stored) = self.by_slot.remove(slot) {
            self.by_expiry.remove(&(stored.expires_at, *slot.as_bytes()));
        }
    }
}

struct StoredCode {
    code: KeyedHash,
    tries_left: u32,
    /// The known client of each wrong try.
    clients: Vec<KeyedHash>,
    expires_at: Instant,
}

impl Default for MemoryOneTimeCodes {
    fn default() -> Self {
        Self::new(MAX_CODES)
    }
}

impl MemoryOneTimeCodes {
    /// Creates a store of at most so many codes. When it is full, a new code replaces the one that expires first.
    pub fn new(max_codes: usize) -> Self {
        let policies = MAIL_LIMITS.iter().map(|limit| {
            let window_ms = u64::try_from(limit.window.as_millis()).unwrap_or(u64::MAX);
            Arc::new(Policy {
                name: format!("mails-{window_ms}").into(),
                scope: Scope::Person,
                quota: Quota::per_window(Algorithm::SlidingWindow, limit.mails, window_ms),
                endpoints: Vec::new(),
                clients: ClientClass::Public,
                unit: Unit::Requests,
                outage: OutageMode::Refuse,
            })
        });
        Self {
            codes: Mutex::default(),
            max_codes,
            mails: LocalCounters::default(),
            mail_policies: policies.collect(),
        }
    }

    /// Counts a mail, if the mailbox may get another one.
    fn count_mail(&self, mailbox: &KeyedHash) -> bool {
        let mut person = [0; 16];
        person.iter_mut().zip(mailbox.as_bytes()).for_each(|(to, from)| *to = *from);
        let subject = SubjectKey::Person(PersonHash::from_bytes(person));
        let charge = |policy: &Arc<Policy>| Charge::new(Arc::clone(policy), subject.clone(), 1);
        let charges: Vec<Charge> = self.mail_policies.iter().map(charge).collect();
        is_within_all(&self.mails.charge(&charges))
    }
}

#[async_trait]
impl OneTimeCodes for MemoryOneTimeCodes {
    async fn issue(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
    ) -> Result<IssueOutcome, CodesUnavailable> {
        let mut codes = self.codes.lock();
        if !self.count_mail(&holder.mailbox) {
            return Ok(IssueOutcome::Throttled);
        }
        let expires_at = Instant::now() + CODE_LIFETIME;
        let stored =
            StoredCode { code: *code, tries_left: MAX_CODE_TRIES, clients: Vec::new(), expires_at };
        codes.insert(holder.slot, stored, self.max_codes);
        Ok(IssueOutcome::Issued)
    }

    async fn redeem(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
        client: Option<&KeyedHash>,
    ) -> Result<bool, CodesUnavailable> {
        let now = Instant::now();
        let mut codes = self.codes.lock();
        let stored = codes.by_slot.get_mut(&holder.slot);
        let Some(stored) = stored.filter(|stored| stored.expires_at > now) else {
            codes.remove(&holder.slot);
            return Ok(false);
        };
        let tries_of = |client| stored.clients.iter().filter(|known| *known == client).count();
        if client.is_some_and(|client| tries_of(client) >= MAX_CODE_TRIES_OF_CLIENT as usize) {
            return Ok(false);
        }
        let is_right = bool::from(stored.code.as_bytes().ct_eq(code.as_bytes()));
        stored.tries_left = stored.tries_left.saturating_sub(1);
        stored.clients.extend(client);
        if is_right || stored.tries_left == 0 {
            codes.remove(&holder.slot);
        }
        Ok(is_right)
    }
}
