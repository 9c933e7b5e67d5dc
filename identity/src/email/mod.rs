//! Persons by e-mail: addresses, which domains may take part, one-time codes and their keyed hashes.
//!
//! Pure values. `storage` stores the hashes, and `ingest` sends the mails.

mod address;
mod code;
mod domains;

pub use address::{EmailAddress, EmailAddressFault};
pub use code::{EmailCodeKey, OneTimeCode};
pub use domains::{DomainFault, EmailDomains, Patterns};
