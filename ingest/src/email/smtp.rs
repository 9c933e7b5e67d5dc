//! One attempt to send one mail through the configured SMTP server.
//!
//! What a server answers may repeat the address, so no text of it leaves this module.

use std::time::Duration;

use lettre::address::AddressError;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use page::mail::CodeMail;
use uuid::Uuid;

use super::config::ServerConfig;
use identity::email::EmailAddress;

/// Mails that are sent at once, each over its own connection.
pub(super) const MAX_CONNECTIONS: usize = 8;
/// Bounds connecting to one address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds one attempt, from connecting to the last reply.
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

/// What a failed attempt says about other mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nothing: the fault is one of the recipient.
    Recipient,
    /// They fail too.
    Server,
    /// They fail too, unless the server says of one recipient what it could say of all.
    Either,
}

impl SendFault {
    /// Whether the same mail may be accepted later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Later(_) | Self::Unreachable)
    }

    /// Returns whose other mails fail too.
    pub fn blame(self) -> Blame {
        match self {
            Self::Recipient | Self::Later(450..=452) => Blame::Recipient,
            // No STARTTLS, or no login (RFC 4954, 6): the recipient is not named before.
            Self::Unsendable | Self::Refused(530 | 534 | 535 | 538) => Blame::Server,
            Self::Unreachable | Self::Refused(_) | Self::Later(_) => Blame::Either,
        }
    }

    /// Returns the reply code, for the log.
    pub fn reply_code(self) -> Option<u16> {
        match self {
            Self::Refused(code) | Self::Later(code) => Some(code),
            _ => None,
        }
    }
}

/// Sends mails through one SMTP server, each over a new connection.
///
/// An attempt that takes too long is dropped in the middle of its conversation. Its connection is never used again: the
/// reply to one mail would be taken for the reply to the next.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    attempt_timeout: Duration,
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
        let transport = builder
            .hello_name(ClientId::Domain(config.from.email.domain().to_owned()))
            .timeout(Some(CONNECT_TIMEOUT))
            .build();
        Ok(Self { transport, from: config.from.clone(), attempt_timeout: ATTEMPT_TIMEOUT })
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
        match tokio::time::timeout(self.attempt_timeout, sent).await {
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
mod tls_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use runtime::config::Settings;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::email::EmailConfig;

    pub(super) fn mailer(url: &str) -> Mailer {
        let pairs = [("email.smtp_url", url), ("email.from", "a@town.example")];
        let settings = Settings::from_pairs(pairs.map(|(name, text)| (name.into(), text.into())));
        let config = EmailConfig::read(&mut settings.reader()).unwrap();
        Mailer::new(config.server.as_ref().unwrap()).unwrap()
    }

    pub(super) fn message(mailer: &Mailer, to: &str) -> Message {
        let mail = CodeMail { subject: "Code".to_owned(), body: format!("for {to}\n") };
        mailer.write(&EmailAddress::parse(to).unwrap(), mail).unwrap()
    }

    /// Serves one connection. The reply to `slow@`, a refusal, waits for a permit.
    async fn serve(
        stream: TcpStream,
        release: Arc<Semaphore>,
        taken: mpsc::UnboundedSender<String>,
    ) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut text = None::<String>;
        let mut reply = "220 test";
        loop {
            if write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
                return;
            }
            reply = loop {
                let Ok(Some(line)) = lines.next_line().await else { return };
                match &mut text {
                    Some(text) if line == "." => {
                        taken.send(std::mem::take(text)).unwrap();
                        break "250 taken";
                    }
                    Some(text) => text.push_str(&(line + "\n")),
                    None if line.starts_with("DATA") => break "354 go on",
                    None if line.contains("slow@") => {
                        release.acquire().await.unwrap().forget();
                        break "550 gone";
                    }
                    None => break "250 ok",
                }
            };
            text = (reply == "354 go on").then(String::new);
        }
    }

    #[tokio::test]
    async fn a_late_reply_to_one_mail_is_not_taken_for_the_reply_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut mailer = mailer(&format!("smtp://{}", listener.local_addr().unwrap()));
        let release = Arc::new(Semaphore::new(0));
        let (taken, mut mails) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (server_release, accepted) = (Arc::clone(&release), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&server_release), taken.clone()));
            }
        });

        mailer.attempt_timeout = Duration::from_millis(300);
        let slow = message(&mailer, "slow@example.org");
        assert_eq!(mailer.send(&slow).await, Err(SendFault::Unreachable));
        // The stalled conversation goes on, with a reply that nobody waits for any more.
        release.add_permits(1);
        mailer.attempt_timeout = ATTEMPT_TIMEOUT;
        for to in ["a@example.org", "b@example.org"] {
            assert_eq!(mailer.send(&message(&mailer, to)).await, Ok(()));
            let text = mails.recv().await.unwrap();
            assert!(text.contains(&format!("To: {to}")) && text.contains(&format!("for {to}")));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 3, "a connection was used again");
        assert!(mails.try_recv().is_err());
    }

    #[test]
    fn only_what_precedes_the_recipient_is_at_once_a_fault_of_the_server() {
        for (fault, blame) in [
            (SendFault::Unsendable, Blame::Server),
            (SendFault::Refused(535), Blame::Server),
            (SendFault::Refused(554), Blame::Either),
            (SendFault::Later(421), Blame::Either),
            (SendFault::Unreachable, Blame::Either),
            (SendFault::Later(451), Blame::Recipient),
            (SendFault::Recipient, Blame::Recipient),
        ] {
            assert_eq!(fault.blame(), blame, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_transport_with_tls_is_prepared_without_a_connection() {
        for url in ["smtps://relay.invalid", "smtp://me:word@relay.invalid:587?tls=required"] {
            mailer(url);
        }
    }
}
