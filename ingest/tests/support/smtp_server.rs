//! A small SMTP server (a subset of RFC 5321): keeps the mails that it gets, and refuses, delays or breaks off as told.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a test waits for a mail. Generous: the machine may be busy.
const MAIL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the server does with an attempt to send a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Replies this code to the recipient.
    RefuseRecipient(u16),
    /// Closes the connection instead of taking the text.
    BreakOff,
    /// Takes the mail after this time.
    Delay(Duration),
}

/// A mail that the server has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMail {
    pub recipients: Vec<String>,
    /// Headers and body, with lines that end with `\n`.
    pub text: String,
}

impl ReceivedMail {
    /// Returns the one-time code: the only line of six digits.
    pub fn code(&self) -> String {
        let body = self.body();
        let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
        let code = body.lines().find(is_code);
        code.unwrap_or_else(|| panic!("no code in {body}")).to_owned()
    }

    pub fn headers(&self) -> &str {
        self.text.split_once("\n\n").map_or(&*self.text, |(headers, _)| headers)
    }

    /// Returns the body; decoded, if it is base64.
    pub fn body(&self) -> String {
        let body = self.text.split_once("\n\n").map_or("", |(_, body)| body);
        if !self.headers().contains("Content-Transfer-Encoding: base64") {
            return body.to_owned();
        }
        use base64::Engine;
        let encoded: String = body.split_whitespace().collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        String::from_utf8(decoded).unwrap()
    }
}

#[derive(Default)]
struct State {
    script: VecDeque<Attempt>,
    deferred_domain: Option<String>,
    mails: Vec<ReceivedMail>,
    attempts: usize,
}

pub struct SmtpServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
}

impl SmtpServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, changed) = (Arc::<Mutex<State>>::default(), watch::Sender::new(()));
        let receiver = changed.subscribe();
        let (states, changed) = (Arc::clone(&state), Arc::new(changed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session = Session { state: Arc::clone(&states), changed: Arc::clone(&changed) };
                tokio::spawn(async move { session.serve(stream).await });
            }
        });
        Self { address, state, changed: receiver }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Tells the server what to do with the next attempts. It takes all mails after them.
    pub fn script(&self, attempts: impl IntoIterator<Item = Attempt>) {
        self.state.lock().script.extend(attempts);
    }

    /// Defers every recipient of a domain from now on.
    pub fn defer_domain(&self, domain: &str) {
        self.state.lock().deferred_domain = Some(format!("@{domain}>"));
    }

    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.state.lock().mails.clone()
    }

    /// Returns how often a client has named a recipient.
    pub fn attempts(&self) -> usize {
        self.state.lock().attempts
    }

    /// Waits until the server has so many mails, and returns the last of them.
    pub async fn nth_mail(&self, number: usize) -> ReceivedMail {
        let mut changed = self.changed.clone();
        let arrived = changed.wait_for(|()| self.state.lock().mails.len() >= number);
        let arrived = tokio::time::timeout(MAIL_TIMEOUT, arrived).await;
        arrived.expect("no mail in time").expect("the server has ended");
        self.mails().swap_remove(number - 1)
    }
}

struct Session {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl Session {
    /// Serves one connection until the client quits, or it breaks off.
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut recipients = Vec::new();
        let mut attempt = None;
        reply(&mut stream, "220 test").await?;
        loop {
            let Some(line) = read_line(&mut stream).await? else { return Ok(()) };
            let command = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            match command.as_str() {
                "EHLO" => reply(&mut stream, "250-test\r\n250 8BITMIME").await?,
                "MAIL" => {
                    recipients.clear();
                    reply(&mut stream, "250 ok").await?;
                }
                "RCPT" => {
                    attempt = {
                        let mut state = self.state.lock();
                        state.attempts += 1;
                        let is_deferred = state.deferred_domain.as_ref();
                        match is_deferred.is_some_and(|domain| line.ends_with(&**domain)) {
                            true => Some(Attempt::RefuseRecipient(451)),
                            false => state.script.pop_front(),
                        }
                    };
                    // As many servers do, with the address in the text.
                    let text = match attempt {
                        Some(Attempt::RefuseRecipient(code)) => format!("{code} {line} refused"),
                        _ => "250 ok".to_owned(),
                    };
                    recipients.push(line[4..].trim_start_matches(" TO:").to_owned());
                    reply(&mut stream, &text).await?;
                }
                "DATA" => {
                    match attempt.take() {
                        Some(Attempt::BreakOff) => return Ok(()),
                        // What the test is about, and no condition that it waits for.
                        Some(Attempt::Delay(time)) => tokio::time::sleep(time).await,
                        _ => {}
                    }
                    reply(&mut stream, "354 go on").await?;
                    let mut text = String::new();
                    loop {
                        let Some(line) = read_line(&mut stream).await? else { return Ok(()) };
                        if line == "." {
                            break;
                        }
                        text.push_str(line.strip_prefix('.').unwrap_or(&line));
                        text.push('\n');
                    }
                    let recipients = std::mem::take(&mut recipients);
                    self.state.lock().mails.push(ReceivedMail { recipients, text });
                    self.changed.send_replace(());
                    reply(&mut stream, "250 taken").await?;
                }
                "QUIT" => return reply(&mut stream, "221 bye").await,
                _ => reply(&mut stream, "250 ok").await?,
            }
        }
    }
}

async fn reply(stream: &mut BufReader<TcpStream>, text: &str) -> io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = stream.read_line(&mut line).await?;
    Ok((length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}
