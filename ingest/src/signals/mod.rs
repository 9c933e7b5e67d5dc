//! Signals of accepted submissions: what is known of a request, as digests, and their way to the log of signals.
//!
//! | module | owns |
//! |---|---|
//! | `origin` | a request's network and user agent, and whether it is of the public |
//! | `sender` | a bounded queue, and the task that appends what is in it |
//!
//! Best effort: a signal that does not fit into the queue, or cannot be appended, is dropped and counted. No submission
//! waits for its signal.

mod origin;
mod sender;

pub(crate) use origin::{OriginDigester, RequestOrigin};
pub(crate) use sender::SignalSender;
