//! People who say all kinds of things while everything fails: they submit, change their minds, withdraw, repeat
//! themselves, contradict themselves under one id, and talk nonsense. They give up, too: what came of each request is
//! noted, and where that is unknown it stays so.
//!
//! Others join a second budget, a few every second, and say no more: nothing that is shown of it may ever fall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ask::{Saying, Turn, ask};
use super::history::{History, Outcome};
use super::{BUDGET, CATEGORIES, JOINS};
use crate::load::uuid_bits;
use crate::record::{mix, mix_128, shares};
use crate::system::System;

/// Enough that nobody has said more than three things between a submission and its repetition: ids are remembered for
/// as long.
const PEOPLE: u64 = 3_000;
const VOICES: u64 = 8;
/// Somebody new joins after as long.
const JOIN_BEAT: Duration = Duration::from_millis(50);
/// How often somebody says something again that was not acknowledged.
const TRIES: u64 = 6;
/// How long it may be that nobody is acknowledged.
const SILENCE: Duration = Duration::from_secs(60);

struct Shared {
    system: System,
    seed: u64,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// People at work.
pub struct Workload {
    shared: Arc<Shared>,
    voices: JoinSet<History>,
}

impl Workload {
    /// Lets them speak until they are told to stop.
    pub fn start(system: &System, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            system: system.clone(),
            seed: mix(seed),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut voices = JoinSet::new();
        for voice in 0..VOICES {
            voices.spawn(speak(Arc::clone(&shared), voice));
        }
        voices.spawn(join(Arc::clone(&shared)));
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
        if !shared.goes_on() {
            break;
        }
        let number_of_all = number * VOICES + voice;
        let person = number % people * VOICES + voice;
        let chance = mix(shared.seed ^ number_of_all);
        let turn = turn(person, chance);
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

/// New people, one after the other. Nobody asks them later what they said, so that is not remembered.
async fn join(shared: Arc<Shared>) -> History {
    let mut history = History::default();
    let mut beat = interval(JOIN_BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for person in 0.. {
        if !shared.goes_on() {
            break;
        }
        beat.tick().await;
        // Far from the numbers of those who speak.
        let chance = mix(shared.seed ^ !person);
        let says = Saying::Allocate(shares(chance, CATEGORIES));
        let turn = Turn { budget: JOINS, person, submission: uuid_bits(mix_128(chance)), says };
        say(&shared, &turn, chance, &mut history).await;
    }
    history
}

fn turn(person: u64, chance: u64) -> Turn {
    let says = match chance % 100 {
        0..8 => Saying::Nonsense(nonsense(chance >> 8)),
        8..20 => Saying::Withdraw,
        _ => Saying::Allocate(shares(chance, CATEGORIES)),
    };
    Turn { budget: BUDGET, person, submission: uuid_bits(mix_128(chance)), says }
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
    // A quarter give up at the first trouble.
    let tries = if chance >> 40 & 7 < 2 { 1 } else { TRIES };
    for attempt in 0..tries {
        let to = shared.system.write_to((chance.wrapping_add(attempt) % 16) as usize);
        match ask(&shared.system, turn, to, history).await {
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
    let says = Saying::Allocate(shares(!chance, CATEGORIES));
    let other = Turn { says, ..turn.clone() };
    ask(&shared.system, &other, shared.system.write_to(chance as usize), history).await;
}
