//! Signals of accepted submissions: what is known of a request, as digests, and their way to the log of signals.
//!
//! | module | owns |
//! |---|---|
//! | `origin` | a request's network and user agent, and whether it is of the public |
//! | `sender` | a bounded queue |
//! | `appender` | the task that appends what is in the queue, also at a shutdown |
//!
//! Best effort: a signal that does not fit into the queue, or cannot be appended, is dropped and counted. No submission
//! waits for its signal.

mod appender;
mod origin;
mod sender;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use appender::PendingSignals;
pub(crate) use origin::{OriginDigester, RequestOrigin};
pub(crate) use sender::SignalSender;
