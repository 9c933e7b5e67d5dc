//! TLS with a server: a mail goes to a server that the system trusts, and to no other.
//!
//! `tests/tls` has a certificate that signs itself, for `localhost`, and its key. No other program uses them. Which
//! certificates are trusted is a matter of the process (`SSL_CERT_FILE`), so a test that trusts this one runs in a process
//! of its own.

use std::env;
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::tests::{mailer, message};
use super::{Blame, SendFault};

const TRUSTED_FILE: &str = "SSL_CERT_FILE";
const CERTIFICATE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/localhost.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../tests/tls/localhost.pem");
const KEY: &[u8] = include_bytes!("../../../tests/tls/localhost.key");
const RECIPIENT: &str = "a@example.org";

/// When the server begins to encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    FromTheStart,
    AfterStartTls,
    Never,
}

/// The lines that a client has sent over one connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    in_plain_text: Vec<String>,
    encrypted: Vec<String>,
}

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// Serves one connection until the client leaves it.
async fn serve(tcp: TcpStream, encryption: Encryption) -> Lines {
    let mut lines = Lines::default();
    let greeting = "220 test\r\n";
    let (tcp, greeting) = match encryption {
        Encryption::FromTheStart => (tcp, greeting),
        Encryption::AfterStartTls | Encryption::Never => {
            // Something to lose: a client that logs in here has told its password.
            let offers = match encryption {
                Encryption::Never => "250-test\r\n250 AUTH PLAIN",
                _ => "250-test\r\n250-AUTH PLAIN\r\n250 STARTTLS",
            };
            let Some(tcp) = converse(tcp, greeting, offers, &mut lines.in_plain_text).await else {
                return lines;
            };
            (tcp, "")
        }
    };
    // Fails when the client does not accept the certificate.
    if let Ok(tls) = acceptor().accept(tcp).await {
        converse(tls, greeting, "250-test\r\n250 AUTH PLAIN", &mut lines.encrypted).await;
    }
    lines
}

/// Converses until the client leaves. Returns the connection at `STARTTLS`.
async fn converse<S>(stream: S, greeting: &str, offers: &str, lines: &mut Vec<String>) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    stream.write_all(greeting.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut is_mail = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        lines.push(line.to_owned());
        let reply = match line.split(' ').next().unwrap_or_default() {
            "." => "250 taken",
            _ if is_mail => continue,
            "EHLO" => offers,
            "AUTH" => "235 ok",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        is_mail = reply.starts_with("354");
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        if line == "STARTTLS" {
            return Some(stream.into_inner());
        }
    }
}

/// Tries to send a mail to a server, with a password. Returns the outcome, and what the client has sent.
async fn attempt(host: &str, encryption: Encryption) -> (Result<(), SendFault>, Lines) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mailer = mailer(&match encryption {
        Encryption::FromTheStart => format!("smtps://me:word@{host}:{port}"),
        _ => format!("smtp://me:word@{host}:{port}?tls=required"),
    });
    let message = message(&mailer, RECIPIENT);
    let serving = async {
        let (tcp, _) = listener.accept().await.unwrap();
        serve(tcp, encryption).await
    };
    tokio::join!(mailer.send(&message), serving)
}

/// Whether this process trusts the certificate. If not, the test is run in a process that does.
fn is_trusting(test: &str) -> bool {
    if env::var_os(TRUSTED_FILE).is_some_and(|file| file == CERTIFICATE_FILE) {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}")])
        .env(TRUSTED_FILE, CERTIFICATE_FILE)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// What a client sends in plain text to have TLS.
fn before_tls(encryption: Encryption) -> &'static [&'static str] {
    match encryption {
        Encryption::FromTheStart => &[],
        _ => &["EHLO town.example", "STARTTLS"],
    }
}

#[tokio::test]
async fn a_trusted_server_gets_login_and_mail_encrypted() {
    if !is_trusting("a_trusted_server_gets_login_and_mail_encrypted") {
        return;
    }
    for encryption in [Encryption::FromTheStart, Encryption::AfterStartTls] {
        let (sent, lines) = attempt("localhost", encryption).await;
        assert_eq!(sent, Ok(()), "{encryption:?}: {lines:?}");
        assert_eq!(lines.in_plain_text, before_tls(encryption));
        for expected in ["AUTH PLAIN", "RCPT TO:<a@example.org>", "for a@example.org"] {
            let has = lines.encrypted.iter().any(|line| line.starts_with(expected));
            assert!(has, "{encryption:?}: no {expected} in {lines:?}");
        }
    }
}

#[tokio::test]
async fn a_trusted_certificate_of_another_name_is_refused_before_anything_is_sent() {
    if !is_trusting("a_trusted_certificate_of_another_name_is_refused_before_anything_is_sent") {
        return;
    }
    refused_by_the_client("127.0.0.1").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused_before_anything_is_sent() {
    refused_by_the_client("localhost").await;
}

async fn refused_by_the_client(host: &str) {
    for encryption in [Encryption::FromTheStart, Encryption::AfterStartTls] {
        let (sent, lines) = attempt(host, encryption).await;
        assert_eq!(sent, Err(SendFault::Unreachable), "{encryption:?}: {lines:?}");
        assert_eq!(lines.in_plain_text, before_tls(encryption));
        assert_eq!(lines.encrypted, [""; 0]);
    }
}

#[tokio::test]
async fn a_server_without_starttls_gets_neither_login_nor_mail() {
    let (sent, lines) = attempt("localhost", Encryption::Never).await;
    assert_eq!(sent, Err(SendFault::Unsendable), "{lines:?}");
    assert_eq!(lines, Lines { in_plain_text: vec!["EHLO town.example".into()], encrypted: vec![] });
    assert_eq!(sent.unwrap_err().blame(), Blame::Server);
}
