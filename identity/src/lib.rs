//! Who the person of a submission is: a budget's identity rule, applied to the principal of a request.
//!
//! | module | owns |
//! |---|---|
//! | `admission` | from credentials and a budget to the persons for whom a request may act |
//! | `asker` | whose submission a request may set, withdraw or read |
//! | `session` | sessions: who gets one, and for which person |
//! | `code` | personal codes: a serial number and a keyed hash, in digits that survive paper |
//! | `cookie` | the cookies of a browser |
//!
//! `runtime::principal` verifies tokens. This crate stores nothing, and does not know what a submission contains.

mod admission;
mod asker;
mod code;
pub mod cookie;
mod session;

pub use admission::{Access, Admission, AdmissionError};
pub use asker::Asker;
pub use code::{CodeKey, MAX_SERIAL, Serial};
pub use session::OpenedSession;
