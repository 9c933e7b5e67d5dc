//! The settings of persons by e-mail.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use http::Uri;
use identity::email::{EmailDomains, Patterns};
use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;
use runtime::config::{KeyDoc, Reader, parse, settings};

settings! {
    /// The settings as they are written.
    struct EmailSettings {
        /// SMTP server that one-time codes are sent through: `smtps://user@host:465`, or `smtp://user@host:587?tls=required`
        /// for STARTTLS. Without TLS from the same machine alone. If empty, no budget can have the identity rule `email`.
        smtp_url: Option<SmtpUrl> = "email.smtp_url", default "",
            unit "URL", parse smtp_url, secret;
        /// File with the password of the user in `email.smtp_url`.
        password_file: Option<PathBuf> = "email.password_file", default "",
            unit "path", parse parse::optional_path;
        /// Sender of the mails, such as `Town <noreply@town.example>`.
        from: Option<Mailbox> = "email.from", default "",
            unit "address", parse from;
        /// Domains whose addresses get codes, `example.org` or `*.example.org`; if empty, all that are not denied.
        allowed_domains: Patterns = "email.allowed_domains", default "",
            unit "domain, ...", parse patterns;
        /// Domains whose addresses get no codes. Whoever asks gets the same answer.
        denied_domains: Patterns = "email.denied_domains", default "",
            unit "domain, ...", parse patterns;
    }
}

/// Settings of persons by e-mail.
#[derive(Debug, Clone)]
pub struct EmailConfig {
    pub(super) server: Option<ServerConfig>,
    pub(super) domains: EmailDomains,
}

/// How to send mails.
#[derive(Clone)]
pub(super) struct ServerConfig {
    pub url: SmtpUrl,
    pub password: Option<String>,
    pub from: Mailbox,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerConfig({:?})", self.url)
    }
}

impl EmailConfig {
    /// The keys of these settings, for the configuration reference.
    pub const KEYS: &'static [KeyDoc] = EmailSettings::KEYS;

    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EmailSettings::read(reader)?;
        let server = match (settings.smtp_url, settings.from) {
            (Some(url), Some(from)) => {
                let password = read_password(reader, &url, settings.password_file)?;
                Some(ServerConfig { url, password, from })
            }
            (None, None) => None,
            _ => {
                let message = "expected both email.smtp_url and email.from, or neither";
                reader.fault(EmailSettings::from.name, message.to_owned());
                return None;
            }
        };
        let domains = EmailDomains::new(settings.allowed_domains, settings.denied_domains);
        Some(Self { server, domains })
    }
}

/// Reads the password. `None` if the reader recorded a fault, `Some(None)` if none is configured.
fn read_password(
    reader: &mut Reader<'_>,
    url: &SmtpUrl,
    path: Option<PathBuf>,
) -> Option<Option<String>> {
    let key = EmailSettings::password_file.name;
    let message = match (&path, url.user()) {
        (Some(_), None) => Some("needs a user in email.smtp_url"),
        (None, Some(_)) if !url.has_password() => Some("required if email.smtp_url has a user"),
        _ => None,
    };
    if let Some(message) = message {
        reader.fault(key, message.to_owned());
        return None;
    }
    let Some(path) = path else { return Some(None) };
    match std::fs::read_to_string(&path) {
        Ok(password) => Some(Some(password.trim_end().to_owned())),
        Err(error) => {
            reader.fault(key, format!("expected a readable file: {error}"));
            None
        }
    }
}

/// The URL of an SMTP server. `Debug` hides user and password.
#[derive(Clone)]
pub(super) struct SmtpUrl {
    text: String,
    host: String,
}

impl SmtpUrl {
    /// Returns the URL with its user and password.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns the user, decoded.
    pub fn user(&self) -> Option<String> {
        let user = self.user_info()?.split(':').next().filter(|user| !user.is_empty())?;
        percent_decode_str(user).decode_utf8().ok().map(Into::into)
    }

    fn has_password(&self) -> bool {
        self.user_info().is_some_and(|user_info| user_info.contains(':'))
    }

    fn user_info(&self) -> Option<&str> {
        Some(self.text.split_once("://")?.1.rsplit_once('@')?.0)
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpUrl({})", self.host)
    }
}

fn smtp_url(text: &str) -> Result<Option<SmtpUrl>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let expected = || {
        "expected a URL such as smtps://user@host:465, or smtp://user@host:587?tls=required (smtp:// alone from the same \
         machine)"
            .to_owned()
    };
    let url: Uri = text.parse().map_err(|_| expected())?;
    let host = url.host().unwrap_or_default();
    let is_local =
        host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    let has_tls = match (url.scheme_str(), url.query()) {
        (Some("smtps"), None) | (Some("smtp"), Some("tls=required")) => true,
        (Some("smtp"), None) => false,
        _ => return Err(expected()),
    };
    // `lettre` cannot connect to an IPv6 address in brackets.
    if host.is_empty()
        || host.starts_with('[')
        || !(has_tls || is_local)
        || !matches!(url.path(), "" | "/")
    {
        return Err(expected());
    }
    Ok(Some(SmtpUrl { text: text.to_owned(), host: host.to_owned() }))
}

fn from(text: &str) -> Result<Option<Mailbox>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mailbox = text.parse().map(Some);
    mailbox.map_err(|_| "expected an address such as Town <noreply@town.example>".to_owned())
}

fn patterns(text: &str) -> Result<Patterns, String> {
    text.parse().map_err(|fault: identity::email::DomainFault| fault.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use runtime::config::Settings;

    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<EmailConfig, String> {
        let pairs = settings.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let settings = Settings::from_pairs(pairs);
        let mut reader = settings.reader();
        let config = EmailConfig::read(&mut reader);
        reader.finish(config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn without_settings_no_server_is_configured() {
        assert!(read(&[]).unwrap().server.is_none());
    }

    #[test]
    fn a_server_outside_of_the_machine_needs_tls() {
        for (url, is_valid) in [
            ("smtps://relay.example", true),
            ("smtps://me%40a.example:word@relay.example:465", true),
            ("smtps://me%40a.example@relay.example:465", false),
            ("smtp://relay.example:587?tls=required", true),
            ("smtp://127.0.0.1:1025", true),
            ("smtp://[::1]:1025", false),
            ("smtp://localhost", true),
            ("smtp://relay.example", false),
            ("smtp://relay.example?tls=opportunistic", false),
            ("smtp://127.0.0.1?tls=opportunistic", false),
            ("smtps://relay.example/path", false),
            ("https://relay.example", false),
            ("relay.example:25", false),
            ("smtps://", false),
        ] {
            let read = read(&[("email.smtp_url", url), ("email.from", "a@b.example")]);
            assert_eq!(read.is_ok(), is_valid, "{url}: {read:?}");
        }
    }

    #[test]
    fn no_message_and_no_representation_has_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret-word\n").unwrap();
        let from = ("email.from", "Town <a@b.example>");
        let url = ("email.smtp_url", "smtps://me%40a.example@relay.example");
        let config = read(&[url, from, ("email.password_file", file.to_str().unwrap())]).unwrap();
        let server = config.server.as_ref().unwrap();
        assert_eq!(server.password.as_deref(), Some("secret-word"));
        assert_eq!(server.url.user().as_deref(), Some("me@a.example"));
        assert!(!format!("{config:?}").contains("secret-word"));
        let wrong = read(&[("email.smtp_url", "smtp://me:secret-word@relay.example"), from]);
        assert!(!wrong.unwrap_err().contains("secret-word"));
        assert!(read(&[url]).is_err() && read(&[from]).is_err());
        let without_user = ("email.smtp_url", "smtps://relay.example");
        assert!(
            read(&[without_user, from, ("email.password_file", file.to_str().unwrap())]).is_err()
        );
    }
}
