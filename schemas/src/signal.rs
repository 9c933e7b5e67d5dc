//! Signals: what is kept of a submission for seven days, to notice fraud.
//!
//! A signal holds the person key and keyed digests: never an address, a user agent, an id or an allocation. The digests
//! of networks and user agents are made with a key of the UTC day and belong to one budget, so that neither two days
//! nor two budgets can be joined by them. ADR 22 says what the digests protect, and what not.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use prost::Message;
use ring::hmac;

use crate::proto::{self, SignalRecord};
use crate::{Allocation, BudgetId, IdentityRule, PersonKey, PersonSecret};

/// Version of the record layout. Other versions are skipped.
const SIGNAL_VERSION: u32 = 1;
/// Length of a day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// How long signals are kept, in milliseconds: seven days.
pub const SIGNAL_RETENTION_MS: u64 = 7 * DAY_MS;
/// Maximum length of an encoded signal, in bytes. Longer records are no signals.
pub const SIGNAL_MAX_BYTES: usize = 256;

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Parses 16 hexadecimal digits.
            pub fn parse(text: &str) -> Option<Self> {
                let well_formed = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
                if well_formed { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

digest! {
    /// Digest of a client's network, in one budget on one UTC day.
    NetworkDigest
}
digest! {
    /// Digest of a `User-Agent` header, in one budget on one UTC day.
    AgentDigest
}
digest! {
    /// Digest of the shares of an allocation, in one budget.
    BallotDigest
}

/// Who vouched for the person of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityLevel {
    /// Nobody: the client named the person, or nobody.
    Unproven,
    /// A cookie or session of one browser.
    Anonymous,
    /// A personal code.
    Code,
    /// A one-time code by e-mail.
    Email,
    /// The token of an identity provider.
    Token,
    /// A level that only a newer release knows.
    Unrecognized,
}

impl IdentityLevel {
    /// All levels, from the weakest.
    pub const ALL: [Self; 6] =
        [Self::Unproven, Self::Anonymous, Self::Code, Self::Email, Self::Token, Self::Unrecognized];

    /// Returns the level of submissions under a budget's rule.
    pub fn of_rule(rule: IdentityRule) -> Self {
        match rule {
            IdentityRule::Required | IdentityRule::Optional => Self::Unproven,
            IdentityRule::Anonymous => Self::Anonymous,
            IdentityRule::Code => Self::Code,
            IdentityRule::Email => Self::Email,
            IdentityRule::Token => Self::Token,
            IdentityRule::Unrecognized => Self::Unrecognized,
        }
    }

    /// Returns the name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Anonymous => "anonymous",
            Self::Code => "code",
            Self::Email => "email",
            Self::Token => "token",
            Self::Unrecognized => "unrecognized",
        }
    }

    fn to_proto(self) -> proto::IdentityLevel {
        match self {
            Self::Unproven => proto::IdentityLevel::Unproven,
            Self::Anonymous => proto::IdentityLevel::Anonymous,
            Self::Code => proto::IdentityLevel::Code,
            Self::Email => proto::IdentityLevel::Email,
            Self::Token => proto::IdentityLevel::Token,
            Self::Unrecognized => proto::IdentityLevel::Unspecified,
        }
    }

    fn from_proto(level: i32) -> Self {
        match proto::IdentityLevel::try_from(level) {
            Ok(proto::IdentityLevel::Unproven) => Self::Unproven,
            Ok(proto::IdentityLevel::Anonymous) => Self::Anonymous,
            Ok(proto::IdentityLevel::Code) => Self::Code,
            Ok(proto::IdentityLevel::Email) => Self::Email,
            Ok(proto::IdentityLevel::Token) => Self::Token,
            Ok(proto::IdentityLevel::Unspecified) | Err(_) => Self::Unrecognized,
        }
    }
}

/// Where a submission came from, as digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalOrigin {
    /// The client's network. `None` behind a proxy that does not name its client.
    pub network: Option<NetworkDigest>,
    /// The client's user agent. `None` without the header.
    pub agent: Option<AgentDigest>,
    /// Who vouched for the person.
    pub identity: IdentityLevel,
}

/// What a submission did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// It set the person's allocation.
    Allocate(BallotDigest),
    /// It withdrew the person's allocation.
    Withdraw,
}

/// What is kept of one accepted submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The budget.
    pub budget: BudgetId,
    /// The person.
    pub person: PersonKey,
    /// Time at which ingest accepted the submission, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// What the submission did.
    pub action: SignalAction,
    /// Where the submission came from.
    pub origin: SignalOrigin,
}

/// Why a record is not a valid signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalFault {
    /// The record is longer than any signal.
    #[error("the record has {0} bytes, more than {SIGNAL_MAX_BYTES}")]
    TooLong(usize),
    /// The record is not valid Protobuf.
    #[error("the record is not a SignalRecord")]
    Garbage,
    /// The version of the layout is unknown.
    #[error("unknown signal version {0}")]
    Version(u32),
    /// The budget id is invalid.
    #[error("the budget's id is not a slug")]
    Budget,
    /// The person key has another length.
    #[error("the person key has {0} bytes instead of 16")]
    Person(usize),
    /// The action is unknown, or does not match the ballot.
    #[error("an invalid action")]
    Action,
}

impl Signal {
    /// Encodes the signal as a record value.
    pub fn encode(&self) -> Vec<u8> {
        let (action, ballot) = match self.action {
            SignalAction::Allocate(ballot) => (proto::SignalAction::Allocate, Some(ballot.0)),
            SignalAction::Withdraw => (proto::SignalAction::Withdraw, None),
        };
        let SignalOrigin { network, agent, identity } = self.origin;
        SignalRecord {
            version: SIGNAL_VERSION,
            budget: self.budget.as_str().to_owned(),
            person: self.person.as_bytes().to_vec(),
            accepted_at_ms: self.accepted_at_ms,
            action: action.into(),
            network: network.map(|digest| digest.0),
            agent: agent.map(|digest| digest.0),
            ballot,
            identity: identity.to_proto().into(),
        }
        .encode_to_vec()
    }

    /// Decodes and validates a record value.
    ///
    /// # Errors
    /// When the record is not a valid signal.
    pub fn decode(value: &[u8]) -> Result<Self, SignalFault> {
        if value.len() > SIGNAL_MAX_BYTES {
            return Err(SignalFault::TooLong(value.len()));
        }
        let record = SignalRecord::decode(value).map_err(|_| SignalFault::Garbage)?;
        if record.version != SIGNAL_VERSION {
            return Err(SignalFault::Version(record.version));
        }
        let person: [u8; PersonKey::BYTES] = record
            .person
            .as_slice()
            .try_into()
            .map_err(|_| SignalFault::Person(record.person.len()))?;
        let action = match (proto::SignalAction::try_from(record.action), record.ballot) {
            (Ok(proto::SignalAction::Allocate), Some(ballot)) => {
                SignalAction::Allocate(BallotDigest(ballot))
            }
            (Ok(proto::SignalAction::Withdraw), None) => SignalAction::Withdraw,
            _ => return Err(SignalFault::Action),
        };
        Ok(Self {
            budget: BudgetId::parse(&record.budget).map_err(|_| SignalFault::Budget)?,
            person: PersonKey::from_bytes(person),
            accepted_at_ms: record.accepted_at_ms,
            action,
            origin: SignalOrigin {
                network: record.network.map(NetworkDigest),
                agent: record.agent.map(AgentDigest),
                identity: IdentityLevel::from_proto(record.identity),
            },
        })
    }
}

/// Computes the digests of signals. All processes of a deployment compute the same.
#[derive(Clone)]
pub struct SignalHasher {
    person_secret: PersonSecret,
    ballots: hmac::Key,
}

impl SignalHasher {
    /// Creates a hasher with keys derived from the deployment's secret.
    pub fn new(person_secret: &PersonSecret) -> Self {
        let ballots = derived_key(person_secret, "signals/ballots");
        Self { person_secret: person_secret.clone(), ballots }
    }

    /// Derives the key of the UTC day of a time in milliseconds since 1970.
    pub fn day_key(&self, at_ms: u64) -> SignalDayKey {
        let day = at_ms / DAY_MS;
        let start = i64::try_from(day * DAY_MS).unwrap_or(i64::MAX);
        let start = Timestamp::from_millisecond(start).unwrap_or(Timestamp::MAX);
        let date = start.to_zoned(TimeZone::UTC).date();
        SignalDayKey { day, key: derived_key(&self.person_secret, &format!("signals/{date}")) }
    }

    /// Computes the digest of an allocation's shares: the same for all people of a budget, on all days.
    pub fn ballot(&self, budget: &BudgetId, allocation: &Allocation) -> BallotDigest {
        let mut hash = begin(&self.ballots, budget);
        allocation.basis_points().iter().for_each(|share| hash.update(&share.to_be_bytes()));
        BallotDigest(first_64_bits(hash))
    }
}

impl fmt::Debug for SignalHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalHasher(hidden)")
    }
}

/// The key of the digests of one UTC day.
#[derive(Clone)]
pub struct SignalDayKey {
    day: u64,
    key: hmac::Key,
}

impl SignalDayKey {
    /// Whether a time, in milliseconds since 1970, is in the key's day.
    pub fn covers(&self, at_ms: u64) -> bool {
        at_ms / DAY_MS == self.day
    }

    /// Computes the digest of a network from its prefix.
    pub fn network(&self, budget: &BudgetId, prefix: &[u8]) -> NetworkDigest {
        NetworkDigest(self.digest(budget, b"network\0", prefix))
    }

    /// Computes the digest of a `User-Agent` header.
    pub fn agent(&self, budget: &BudgetId, agent: &[u8]) -> AgentDigest {
        AgentDigest(self.digest(budget, b"agent\0", agent))
    }

    fn digest(&self, budget: &BudgetId, kind: &[u8], value: &[u8]) -> u64 {
        let mut hash = begin(&self.key, budget);
        hash.update(kind);
        hash.update(value);
        first_64_bits(hash)
    }
}

impl fmt::Debug for SignalDayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalDayKey(hidden)")
    }
}

fn derived_key(person_secret: &PersonSecret, purpose: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &person_secret.derived_secret(purpose))
}

/// Begins a digest with the budget and a zero byte, which no slug has.
fn begin(key: &hmac::Key, budget: &BudgetId) -> hmac::Context {
    let mut hash = hmac::Context::with_key(key);
    hash.update(budget.as_str().as_bytes());
    hash.update(b"\0");
    hash
}

fn first_64_bits(hash: hmac::Context) -> u64 {
    hash.sign().as_ref().iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}
