//! Whom a request counts against: the values that policies of each scope count by.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::policy::{EndpointClass, Scope};
use crate::client::ClientNetwork;

/// The keyed hash of a person, so that no counter knows an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PersonHash([u8; 16]);

impl PersonHash {
    /// Creates the hash from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for PersonHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PersonHash(hidden)")
    }
}

/// Whom a request counts against.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The network of the client.
    pub network: ClientNetwork,
    /// The person that the request is about.
    pub person: Option<PersonHash>,
    /// The organisation of the client's credential.
    pub organisation: Option<Arc<str>>,
}

impl Subject {
    /// Returns the value that policies of a scope count by; `None` if the request has none, so that they do not apply.
    pub(super) fn key(&self, scope: Scope, endpoint: EndpointClass) -> Option<SubjectKey> {
        match scope {
            Scope::Global => Some(SubjectKey::Global),
            Scope::Address => self.network.address().map(SubjectKey::Address),
            Scope::Person => self.person.map(SubjectKey::Person),
            Scope::Organisation => self.organisation.clone().map(SubjectKey::Organisation),
            Scope::Endpoint => Some(SubjectKey::Endpoint(endpoint)),
        }
    }
}

/// What one counter of a policy is for. Displayed as part of a key of the shared counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectKey {
    /// Everyone.
    Global,
    /// An IPv4 address or an IPv6 network.
    Address(IpAddr),
    /// A person.
    Person(PersonHash),
    /// An organisation.
    Organisation(Arc<str>),
    /// An endpoint class.
    Endpoint(EndpointClass),
    /// An administrator's place in the list of credentials.
    Administrator(usize),
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => out.write_str("all"),
            Self::Address(address) => address.fmt(out),
            Self::Person(PersonHash(hash)) => out.write_str(&hex::encode(hash)),
            Self::Organisation(name) => out.write_str(name),
            Self::Endpoint(class) => out.write_str(class.name()),
            Self::Administrator(slot) => slot.fmt(out),
        }
    }
}
