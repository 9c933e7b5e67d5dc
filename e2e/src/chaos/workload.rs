//! People who say all kinds of things while everything fails: they submit, change their minds, withdraw, repeat
//! themselves, contradict themselves under one id, and talk nonsense. They give up, too: what came of each request is
//! noted, and where that is unknown it stays so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::history::{Attempt, History, Outcome};
use crate::load::{uuid, uuid_bits};
use crate::record::{mix, mix_128, shares};
use crate::system::{Answer, System, allocation, receipt, send};

/// Enough that nobody has said more than three things between a submission and its repetition: ids are remembered for
/// as long.
const PEOPLE: u64 = 3_000;
const VOICES: u64 = 8;
/// How often somebody says something again that was not acknowledged.
const TRIES: u64 = 6;
/// How long a client waits for an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may be that nobody is acknowledged.
const SILENCE: Duration = Duration::from_secs(60);

/// What is said.
#[derive(Debug, Clone)]
enum Saying {
    Allocate(Vec<u32>),
    Withdraw,
    /// Something that no one may accept.
    Nonsense(Value),
}

/// A person's turn.
#[derive(Debug, Clone)]
struct Turn {
    person: u64,
    submission: u128,
    says: Saying,
}

struct Shared {
    system: System,
    budget: String,
    categories: usize,
    seed: u64,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// People at work.
pub struct Workload {
    shared: Arc<Shared>,
    voices: JoinSet<History>,
}

impl Workload {
    /// Lets them speak until they are told to stop.
    pub fn start(system: &System, budget: &str, categories: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            system: system.clone(),
            budget: budget.to_owned(),
            categories,
            seed: mix(seed),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut voices = JoinSet::new();
        for voice in 0..VOICES {
            voices.spawn(speak(Arc::clone(&shared), voice));
        }
        Self { shared, voices }
    }

    /// Waits until `more` requests have been acknowledged from now on.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn goes_on_for(&self, more: u64) -> Result<()> {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let (target, deadline) = (acknowledged() + more, Instant::now() + SILENCE);
        while acknowledged() < target {
            ensure!(Instant::now() < deadline, "{} acknowledged, {target} awaited", acknowledged());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Lets everyone finish what they are about to say.
    ///
    /// # Errors
    /// When a voice panicked.
    pub async fn stop(mut self) -> Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut whole = History::default();
        while let Some(history) = self.voices.join_next().await {
            whole.add(history?);
        }
        Ok(whole)
    }
}

/// One voice: its people in turn, again and again.
async fn speak(shared: Arc<Shared>, voice: u64) -> History {
    let mut history = History::default();
    let people = PEOPLE / VOICES;
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let number_of_all = number * VOICES + voice;
        let person = number % people * VOICES + voice;
        let chance = mix(shared.seed ^ number_of_all);
        let turn = turn(&shared, person, chance);
        let last = say(&shared, &turn, chance, &mut history).await;
        remember(&mut history, &turn, last);
        // Some repeat what was accepted, word for word or with other words under the same id.
        if last == Some(true) {
            match chance >> 32 & 15 {
                0 => drop(say(&shared, &turn, chance >> 1, &mut history).await),
                1 => contradict(&shared, &turn, chance, &mut history).await,
                _ => {}
            }
        }
    }
    history
}

fn turn(shared: &Shared, person: u64, chance: u64) -> Turn {
    let says = match chance % 100 {
        0..8 => Saying::Nonsense(nonsense(chance >> 8)),
        8..20 => Saying::Withdraw,
        _ => Saying::Allocate(shares(chance, shared.categories)),
    };
    Turn { person, submission: uuid_bits(mix_128(chance)), says }
}

fn nonsense(chance: u64) -> Value {
    match chance % 6 {
        0 => json!({"c0": 99.99}),
        1 => json!({"c0": 60, "c1": 60, "c2": -20}),
        2 => json!({"c0": 50, "no-such-category": 50}),
        3 => json!({"c0": 33.333, "c1": 66.667}),
        4 => json!({"c0": "100"}),
        _ => json!([]),
    }
}

/// Keeps what a person said last, and whether that is certain.
fn remember(history: &mut History, turn: &Turn, accepted: Option<bool>) {
    let said = match &turn.says {
        Saying::Allocate(shares) => Some(shares.clone()),
        Saying::Withdraw => None,
        Saying::Nonsense(_) => return,
    };
    match accepted {
        Some(true) => drop(history.last.insert(turn.person, said)),
        Some(false) => {}
        None => drop(history.uncertain.insert(turn.person)),
    }
}

/// Says something until it is accepted, or not worth saying again, or the person gives up. Whether it was accepted,
/// if that is certain of every try.
async fn say(shared: &Shared, turn: &Turn, chance: u64, history: &mut History) -> Option<bool> {
    let mut uncertain = false;
    // A fifth give up at the first trouble.
    let tries = if chance >> 40 & 7 < 2 { 1 } else { TRIES };
    for attempt in 0..tries {
        let to = shared.system.write_to((chance.wrapping_add(attempt) % 16) as usize);
        let outcome = ask(shared, turn, to, history).await;
        history.attempts.push(Attempt { submission: turn.submission, outcome });
        match outcome {
            Outcome::Acknowledged { .. } => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                return (!uncertain).then_some(true);
            }
            Outcome::Refused if matches!(turn.says, Saying::Nonsense(_)) => return Some(false),
            Outcome::Refused => {}
            Outcome::Unknown => uncertain = true,
        }
        sleep(Duration::from_millis(50 << attempt)).await;
    }
    (!uncertain).then_some(false)
}

/// Says something else under an id that was accepted: refused, or, where nobody remembers the id, in the log and
/// without effect.
async fn contradict(shared: &Shared, turn: &Turn, chance: u64, history: &mut History) {
    let says = Saying::Allocate(shares(!chance, shared.categories));
    let other = Turn { says, ..turn.clone() };
    let outcome = ask(shared, &other, shared.system.write_to(chance as usize), history).await;
    history.attempts.push(Attempt { submission: turn.submission, outcome });
}

async fn ask(shared: &Shared, turn: &Turn, to: &str, history: &mut History) -> Outcome {
    let request = request(shared, turn, to).timeout(CLIENT_PATIENCE);
    match send(request).await {
        Ok(answer) => judge(turn, &answer).unwrap_or_else(|| {
            history.wrong.push(format!(
                "{turn:?} was answered {}: {}",
                answer.status,
                answer.text()
            ));
            Outcome::Unknown
        }),
        // Nobody listened: nothing was sent.
        Err(error)
            if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) =>
        {
            Outcome::Refused
        }
        Err(_) => Outcome::Unknown,
    }
}

fn request(shared: &Shared, turn: &Turn, to: &str) -> RequestBuilder {
    let path = format!("{to}/v1/budgets/{}/submissions", shared.budget);
    let (person, id) = (format!("p-{}", turn.person), uuid(turn.submission));
    let submit = |allocation: Value| {
        let body = json!({"person": person, "submission_id": id, "allocation": allocation});
        shared.system.request(Method::POST, path.clone()).json(&body)
    };
    match &turn.says {
        Saying::Allocate(shares) => submit(allocation(shares)),
        Saying::Nonsense(nonsense) => submit(nonsense.clone()),
        Saying::Withdraw => shared
            .system
            .request(Method::DELETE, format!("{path}/{person}"))
            .header("idempotency-key", &id),
    }
}

/// What an answer says; nothing, if it may not be given.
fn judge(turn: &Turn, answer: &Answer) -> Option<Outcome> {
    let nonsense = matches!(turn.says, Saying::Nonsense(_));
    match answer.status {
        202 if !nonsense => {
            let receipt = receipt(answer).ok()?;
            Some(Outcome::Acknowledged { partition: receipt.partition, offset: receipt.offset })
        }
        400 | 422 if nonsense => Some(Outcome::Refused),
        // The same id is being handled elsewhere, or was accepted with other words.
        409 => answer.problem(409, "in-flight").ok().map(|_| Outcome::Refused),
        422 => answer.problem(422, "key-reused").ok().map(|_| Outcome::Refused),
        503 => {
            let problem = answer.problem(503, "unavailable").ok()?;
            let unknown = problem["detail"].as_str()?.contains("unknown");
            Some(if unknown { Outcome::Unknown } else { Outcome::Refused })
        }
        _ => None,
    }
}
