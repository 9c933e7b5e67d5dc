//! The door that only administrators pass: who asks, whether they may, how often, and the line that says what they did.
//!
//! | place | what |
//! |---|---|
//! | `role` | what a credential allows |
//! | `credentials`, `tokens_file`, `follow` | who has one, the file that says so, and what becomes of it |
//! | `decision` | a request to a [`Principal`], or why not; pure |
//! | `this_machine` | who counts as local where no credential is configured |
//! | `client_address` | where a request comes from, through proxies |
//! | `limits` | how often administrators may ask, and strangers may try |
//! | `record` | the log line and the count of each request |
//! | `guard`, `routes` | all of it around a route, which cannot be added without the role that it needs |
//!
//! What the routes do is not decided here.

mod client_address;
mod config;
mod credentials;
mod decision;
mod follow;
mod guard;
mod limits;
mod record;
mod role;
mod routes;
mod this_machine;
mod tokens_file;

pub use client_address::TrustedProxies;
pub use config::AdminConfig;
pub use credentials::{Credentials, Principal};
pub use guard::AdminGuard;
pub use role::Role;
pub use routes::AdminRoutes;
pub use tokens_file::{TokensFile, TokensFileFaults};
