//! Opens the configured backends.
//!
//! | file | opens |
//! |---|---|
//! | `log` | the log: for appending, for folding, for reading |
//! | `dead_letters` | the dead letter journal |
//! | `signals` | the signals |
//! | `store` | totals, person rows, generations and jobs |
//! | `control` | the control topic |
//! | `cache` | what Redis keeps, or the memory of a single process |

mod cache;
mod control;
mod dead_letters;
mod log;
mod signals;
mod store;

pub use log::LogHandles;
pub use store::StoreHandles;
