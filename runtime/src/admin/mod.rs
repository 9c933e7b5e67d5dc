//! Access control of administrator routes: authentication, authorization, rate limits and a log line per request.
//!
//! | module | owns |
//! |---|---|
//! | `role` | what a credential allows |
//! | `credentials`, `tokens_file`, `reload` | the credentials, the file that holds them, and its reload |
//! | `authorize` | from a request to a [`Principal`] or a refusal; pure |
//! | `local_client` | which clients are local, for deployments without credentials |
//! | `limits` | rate limits of administrators and of failed attempts |
//! | `request_record` | the log line and the counter of each request |
//! | `guard`, `routes` | the middleware, and the router that adds it to every route with the role it needs |
//!
//! This module does not decide what the routes do.

mod authorize;
mod config;
mod credentials;
mod guard;
mod limits;
mod local_client;
mod reload;
mod request_record;
mod role;
mod routes;
mod tokens_file;

pub(crate) use authorize::bearer_token;
pub use config::AdminConfig;
pub use credentials::{Credentials, Principal};
pub use guard::AdminGuard;
pub(crate) use local_client::is_local;
pub use role::Role;
pub use routes::AdminRoutes;
pub use tokens_file::{TokensFile, TokensFileFaults};
