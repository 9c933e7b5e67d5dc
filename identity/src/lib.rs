//! Who the person of a submission is: a budget's identity rule, applied to the principal of a request.
//!
//! | module | owns |
//! |---|---|
//! | `authorizer` | for which persons a request may act, by its credentials and the budget |
//! | `submitter` | services and administrators, who act for persons |
//! | `batch_submitter` | who may send the submissions of many persons |
//! | `issuer` | the issuers of persons whom this service itself vouches for |
//! | `person_scope` | whose submission a request may set, withdraw or read |
//! | `session` | sessions: who gets one, and for which person |
//! | `code` | personal codes: a serial number and a keyed hash, in digits that survive paper |
//! | `email` | e-mail addresses, their domains, one-time codes and their keyed hashes |
//! | `person_cookie`, `cookie` | the cookies of a browser: that make it a person, and others |
//!
//! `runtime::principal` verifies tokens. This crate stores nothing, and does not know what a submission contains.

mod authorizer;
mod batch_submitter;
mod code;
pub mod cookie;
pub mod email;
mod issuer;
mod person_cookie;
mod person_scope;
mod session;
mod submitter;

pub use authorizer::{Authorizer, AuthorizerError};
pub use code::{CodeKey, MAX_SERIAL, Serial};
pub use person_scope::{Access, PersonScope};
pub use session::OpenedSession;
pub use submitter::Submitter;
