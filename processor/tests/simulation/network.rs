//! The way between a process and the servers. A request, once sent, is carried out or not whatever becomes of who sent
//! it; its answer may never come, and its effect may come when nobody waits for it any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::world::{World, lock};

/// How long a client waits for an answer, in milliseconds.
const PATIENCE_MS: u64 = 100;
/// The longest time after which a request that was given up still takes effect.
const LATEST_MS: u64 = 1_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Store,
    Cache,
    Letters,
}

/// How a service is to be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Condition {
    /// Nothing gets through.
    pub down: bool,
    /// How many calls in a hundred meet with trouble.
    pub trouble_percent: u32,
}

/// Every service's condition. Calm by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather([Condition; 3]);

impl Weather {
    pub fn of(&mut self, service: Service) -> &mut Condition {
        &mut self.0[service as usize]
    }
}

/// What becomes of one call.
struct Fate {
    /// When the server carries it out, if ever.
    effect: Option<Duration>,
    answer: Answer,
}

enum Answer {
    /// This long after the effect.
    Comes(Duration),
    /// Never; the client gives up.
    Never,
    /// The connection breaks before any answer.
    Breaks(Duration),
}

/// One process's connection to the servers.
#[derive(Clone)]
pub struct Link {
    pub world: Arc<World>,
}

impl Link {
    /// Sends a request whose effect is `effect`.
    pub async fn call<T: Send + 'static>(
        &self,
        service: Service,
        effect: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let fate = self.fate(service);
        let (reply, answer) = oneshot::channel();
        let back = match fate.answer {
            Answer::Comes(back) => Some(back),
            _ => None,
        };
        if let Some(there) = fate.effect {
            tokio::spawn(async move {
                sleep(there).await;
                let outcome = effect.await;
                if let Some(back) = back {
                    sleep(back).await;
                    let _ = reply.send(outcome);
                }
            });
        }
        match fate.answer {
            Answer::Comes(_) => match timeout(ms(PATIENCE_MS), answer).await {
                Ok(Ok(answer)) => Ok(answer),
                _ => Err("no answer in time".into()),
            },
            Answer::Never => {
                sleep(ms(PATIENCE_MS)).await;
                Err("no answer in time".into())
            }
            Answer::Breaks(after) => {
                sleep(after).await;
                Err("the connection broke".into())
            }
        }
    }

    fn fate(&self, service: Service) -> Fate {
        let condition = *lock(&self.world.weather).of(service);
        if condition.down {
            self.world.count(|counts| counts.lost_requests += 1);
            let breaks = self.world.chance(50);
            let answer = if breaks { Answer::Breaks(ms(1)) } else { Answer::Never };
            return Fate { effect: None, answer };
        }
        let (there, back) = (self.world.draw_ms(0..=2), self.world.draw_ms(0..=2));
        if !self.world.chance(condition.trouble_percent) {
            return Fate { effect: Some(there), answer: Answer::Comes(back) };
        }
        let breaks = Answer::Breaks(self.world.draw_ms(0..=20));
        let late = self.world.draw_ms(0..=LATEST_MS);
        let (effect, answer) = match self.world.draw(|rng| rng.u32(0..7)) {
            0 => (None, Answer::Never),
            1 => (None, breaks),
            2 => (Some(there), Answer::Never),
            3 => (Some(there), breaks),
            4 => (Some(late), Answer::Never),
            5 => (Some(late), breaks),
            _ => (
                Some(self.world.draw_ms(0..=PATIENCE_MS)),
                Answer::Comes(self.world.draw_ms(0..=PATIENCE_MS)),
            ),
        };
        self.world.count(|counts| match (effect, &answer) {
            (None, _) => counts.lost_requests += 1,
            (Some(effect), Answer::Never | Answer::Breaks(_)) if effect == late => {
                counts.late_effects += 1;
            }
            (Some(_), Answer::Never | Answer::Breaks(_)) => counts.lost_replies += 1,
            (Some(_), Answer::Comes(_)) => {}
        });
        Fate { effect, answer }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
