//! The network between a process and the servers. A sent request is applied or not, whatever happens to its sender. Its
//! response may be lost, and its effect may happen after the sender has given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::world::World;

/// Time that a client waits for a response.
pub const CALL_TIMEOUT_MS: u64 = 100;
/// Maximum delay after which an abandoned request still takes effect.
pub const MAX_LATE_EFFECT_MS: u64 = 1_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Store,
    Cache,
    DeadLetters,
}

/// What is wrong with one partition, of which the others have nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionFault {
    /// Its bounds and records cannot be read from the log.
    NoLeader,
    /// The store does not answer any call about it.
    NoQuorum,
}

/// How reliably a service can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Condition {
    /// Every request is lost.
    pub down: bool,
    /// Percentage of calls with a fault.
    pub failing_percent: u32,
}

/// Every service's condition; without faults by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkConditions([Condition; 3]);

impl NetworkConditions {
    pub fn of(&mut self, service: Service) -> &mut Condition {
        &mut self.0[service as usize]
    }
}

/// The drawn outcome of one call.
struct CallOutcome {
    /// Delay until the server applies the request; `None` if it is lost.
    effect: Option<Duration>,
    response: Response,
}

enum Response {
    /// Arrives this long after the effect.
    Arrives(Duration),
    /// Never arrives: the client times out.
    Lost,
    /// The connection breaks before the response.
    ConnectionBreaks(Duration),
}

/// One process's connection to the servers.
#[derive(Clone)]
pub struct Link {
    pub world: Arc<World>,
}

impl Link {
    /// Sends a request that has `effect` on the server.
    pub async fn call<T: Send + 'static>(
        &self,
        service: Service,
        effect: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let outcome = self.draw_outcome(service);
        let (reply, response) = oneshot::channel();
        let back = match outcome.response {
            Response::Arrives(back) => Some(back),
            _ => None,
        };
        if let Some(there) = outcome.effect {
            tokio::spawn(async move {
                sleep(there).await;
                let result = effect.await;
                if let Some(back) = back {
                    sleep(back).await;
                    let _ = reply.send(result);
                }
            });
        }
        match outcome.response {
            Response::Arrives(_) => match timeout(ms(CALL_TIMEOUT_MS), response).await {
                Ok(Ok(response)) => Ok(response),
                _ => Err("no response in time".into()),
            },
            Response::Lost => {
                sleep(ms(CALL_TIMEOUT_MS)).await;
                Err("no response in time".into())
            }
            Response::ConnectionBreaks(after) => {
                sleep(after).await;
                Err("the connection broke".into())
            }
        }
    }

    fn draw_outcome(&self, service: Service) -> CallOutcome {
        let condition = *self.world.network.lock().of(service);
        if condition.down {
            self.world.count(|counts| counts.lost_requests += 1);
            let breaks = self.world.chance(50);
            let response = if breaks { Response::ConnectionBreaks(ms(1)) } else { Response::Lost };
            return CallOutcome { effect: None, response };
        }
        let (there, back) = (self.world.draw_ms(0..=2), self.world.draw_ms(0..=2));
        if !self.world.chance(condition.failing_percent) {
            return CallOutcome { effect: Some(there), response: Response::Arrives(back) };
        }
        let breaks = Response::ConnectionBreaks(self.world.draw_ms(0..=20));
        let late = self.world.draw_ms(0..=MAX_LATE_EFFECT_MS);
        let (effect, response) = match self.world.draw(|rng| rng.u32(0..7)) {
            0 => (None, Response::Lost),
            1 => (None, breaks),
            2 => (Some(there), Response::Lost),
            3 => (Some(there), breaks),
            4 => (Some(late), Response::Lost),
            5 => (Some(late), breaks),
            _ => (
                Some(self.world.draw_ms(0..=CALL_TIMEOUT_MS)),
                Response::Arrives(self.world.draw_ms(0..=CALL_TIMEOUT_MS)),
            ),
        };
        self.world.count(|counts| match (effect, &response) {
            (None, _) => counts.lost_requests += 1,
            (Some(effect), Response::Lost | Response::ConnectionBreaks(_)) if effect == late => {
                counts.late_effects += 1;
            }
            (Some(_), Response::Lost | Response::ConnectionBreaks(_)) => counts.lost_replies += 1,
            (Some(_), Response::Arrives(_)) => {}
        });
        CallOutcome { effect, response }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
