//! Annulling people of a budget, and restoring them: whom a request selects, what it changes, and the records.
//!
//! Who is annulled is decided by the log alone: the latest record about a person holds. So records may be appended
//! again, and an interrupted annulment or restoration is repeated from its beginning.
//!
//! | file | owns |
//! |---|---|
//! | `selection` | which people a request selects |
//! | `effect` | what changes: numbers of people, and results before and after |
//! | `append` | appending one record for each person |
//! | `restorable` | whom an annulment holds, by the log |
//!
//! The executors of jobs and the commands call these. The operators' list of annulments is in `storage::control`.

mod append;
mod effect;
mod restorable;
mod selection;

pub use append::{AnnulmentAppender, AppendFailed};
pub use effect::{EffectDeps, effect};
pub use restorable::people_annulled_by;
pub use selection::select;
