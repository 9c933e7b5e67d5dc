//! One attempt to send one mail through the configured SMTP server.
//!
//! What a server answers may repeat the address, so no text of it leaves this module.

use std::time::Duration;

use lettre::address::AddressError;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use page::mail::CodeMail;
use uuid::Uuid;

use super::config::ServerConfig;
use identity::email::EmailAddress;

/// Connections that stay open, and mails that are sent at once.
pub(super) const MAX_CONNECTIONS: usize = 8;
/// How long an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds connecting and each command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The configured SMTP server cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("email.smtp_url: no connection to the SMTP server can be prepared")]
pub struct SmtpError;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendFault {
    /// The server takes no mail for this recipient, ever. Says nothing about other mails.
    Recipient,
    /// The server refuses for good, for a reason that is not the recipient: wrong credentials, a blocked sender.
    Refused(u16),
    /// The server refuses for now.
    Later(u16),
    /// The server cannot be reached, or breaks off.
    Unreachable,
    /// The server lacks what the settings require, such as STARTTLS; or the mail cannot be written.
    Unsendable,
}

impl SendFault {
    /// Whether the same mail may be accepted later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Later(_) | Self::Unreachable)
    }

    /// Whether other mails fail too.
    pub fn concerns_all(self) -> bool {
        !matches!(self, Self::Recipient | Self::Later(450..=452))
    }

    /// Returns the reply code, for the log.
    pub fn reply_code(self) -> Option<u16> {
        match self {
            Self::Refused(code) | Self::Later(code) => Some(code),
            _ => None,
        }
    }
}

/// Sends mails through one SMTP server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// Prepares the transport. Connects to nothing yet.
    pub fn new(config: &ServerConfig) -> Result<Self, SmtpError> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(config.url.reveal());
        // The error may repeat a part of the URL.
        let mut builder = builder.map_err(|_| SmtpError)?;
        if let (Some(user), Some(password)) = (config.url.user(), &config.password) {
            builder = builder.credentials(Credentials::new(user, password.clone()));
        }
        let pool = PoolConfig::new().max_size(MAX_CONNECTIONS as u32).idle_timeout(IDLE_TIMEOUT);
        let transport = builder
            .hello_name(ClientId::Domain(config.from.email.domain().to_owned()))
            .timeout(Some(COMMAND_TIMEOUT))
            .pool_config(pool)
            .build();
        Ok(Self { transport, from: config.from.clone() })
    }

    /// Writes a mail. Headers are encoded, so that no text of a budget begins another one.
    pub fn write(&self, to: &EmailAddress, mail: CodeMail) -> Result<Message, SendFault> {
        let invalid = |_: AddressError| SendFault::Unsendable;
        let to = Address::new(to.local_part(), to.domain()).map_err(invalid)?;
        let message_id = format!("<{}@{}>", Uuid::new_v4(), self.from.email.domain());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject)
            .date_now()
            .message_id(Some(message_id))
            .header(AutoSubmitted)
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body)
            .map_err(|_| SendFault::Unsendable)
    }

    /// Tries to send a mail once.
    pub async fn send(&self, message: &Message) -> Result<(), SendFault> {
        let sent = self.transport.send(message.clone());
        match tokio::time::timeout(ATTEMPT_TIMEOUT, sent).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => Err(SendFault::Unreachable),
        }
    }
}

fn fault(error: &lettre::transport::smtp::Error) -> SendFault {
    match error.status().map(u16::from) {
        // RFC 5321, 4.2.3, and RFC 7504: mailbox unavailable, not local, over quota, name not allowed, takes no mail.
        Some(550..=553 | 556) => SendFault::Recipient,
        Some(code @ 500..) => SendFault::Refused(code),
        Some(code) => SendFault::Later(code),
        None if error.is_client() => SendFault::Unsendable,
        None => SendFault::Unreachable,
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834): no automatic answer is wanted.
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use runtime::config::Settings;

    use super::*;
    use crate::email::EmailConfig;

    #[tokio::test]
    async fn a_transport_with_tls_is_prepared_without_a_connection() {
        for url in ["smtps://relay.invalid", "smtp://me:word@relay.invalid:587?tls=required"] {
            let pairs = [("email.smtp_url", url), ("email.from", "a@town.example")];
            let settings =
                Settings::from_pairs(pairs.map(|(name, text)| (name.into(), text.into())));
            let config = EmailConfig::read(&mut settings.reader()).unwrap();
            assert!(Mailer::new(config.server.as_ref().unwrap()).is_ok(), "{url}");
        }
    }
}
