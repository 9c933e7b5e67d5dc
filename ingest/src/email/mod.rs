//! Persons by e-mail: issues one-time codes, sends them, and redeems them.
//!
//! | module | owns |
//! |---|---|
//! | `config` | the settings |
//! | `sign_in` | who gets a code, and whether one is right |
//! | `sender` | pending mails: how many, how often, until when |
//! | `smtp` | one attempt to send one mail |
//! | `unsupported` | the report of budgets that need a server where none is configured |
//!
//! No address and no code is in a log line, a metric or an error of this module. `identity` knows addresses and codes,
//! `storage` their keyed hashes, `page` the text of the mail.

mod config;
mod sender;
mod sign_in;
mod smtp;
mod unsupported;

use std::sync::Arc;

use runtime::metrics::{Metrics, MetricsError};
use schemas::PersonSecret;
use storage::one_time_codes::OneTimeCodes;
use tokio_util::sync::CancellationToken;

pub use config::EmailConfig;
pub use sign_in::EmailSignIn;
pub use smtp::SmtpError;
pub use unsupported::report_budgets_without_email;

/// Why signing in by e-mail cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The configured SMTP server cannot be used.
    #[error(transparent)]
    Smtp(#[from] SmtpError),
    /// A metric's name is taken, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] MetricsError),
}

/// Builds what signs persons in by e-mail, until `stop`. `None` without an SMTP server in the settings.
///
/// # Errors
/// When the SMTP settings are unusable, or a metric's name is taken.
pub fn email_sign_in(
    config: &EmailConfig,
    person_secret: &PersonSecret,
    codes: Arc<dyn OneTimeCodes>,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<Option<EmailSignIn>, EmailError> {
    let Some(server) = &config.server else { return Ok(None) };
    let mailer = smtp::Mailer::new(server)?;
    let sender = sender::MailSender::new(mailer, metrics, stop)?;
    Ok(Some(EmailSignIn::new(config.domains.clone(), person_secret, codes, sender)))
}
