//! Combines requests that arrive while a call is in flight into the next call: one script for many requests costs the
//! server and this process much less than one for each. A request that arrives alone is sent at once.
//!
//! Owns the queue and the grouping. Does not know what a call does.

use std::time::Duration;

use runtime::limits::{Charge, CountersUnavailable, QuotaStatus};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// The charges of one request: all or none of them.
pub(super) type Request = Vec<Charge>;

/// Requests that wait for the call in flight. More are refused at once.
const MAX_WAITING_REQUESTS: usize = 4_096;
/// Charges of a call that gets no further request, so that a call does not occupy the server for long.
const FULL_CALL_CHARGES: usize = 256;

type Outcome = Result<Vec<QuotaStatus>, CountersUnavailable>;

struct WaitingRequest {
    charges: Request,
    outcome: oneshot::Sender<Outcome>,
}

/// Sends requests in calls, one after the other.
pub(super) struct CombinedCalls {
    queue: mpsc::Sender<WaitingRequest>,
    timeout: Duration,
    _task: AbortOnDropHandle<()>,
}

impl CombinedCalls {
    /// Starts the task that calls `call`, which returns the outcome of each request in order. A request waits at most
    /// `timeout`.
    pub fn start<F>(timeout: Duration, call: impl Fn(Vec<Request>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Vec<QuotaStatus>>, CountersUnavailable>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_REQUESTS);
        let task = AbortOnDropHandle::new(tokio::spawn(run(waiting, call)));
        Self { queue, timeout, _task: task }
    }

    /// Charges one request.
    ///
    /// # Errors
    /// If the outcome is unknown. The counters may be charged.
    pub async fn charge(&self, charges: Request) -> Outcome {
        let (outcome, received) = oneshot::channel();
        self.queue
            .try_send(WaitingRequest { charges, outcome })
            .map_err(|_| CountersUnavailable("too many requests wait for Redis".to_owned()))?;
        let lost = |_| CountersUnavailable("the call was lost".to_owned());
        match timeout(self.timeout, received).await {
            Ok(received) => received.map_err(lost)?,
            Err(_) => Err(CountersUnavailable(format!(
                "no outcome within {} ms",
                self.timeout.as_millis()
            ))),
        }
    }
}

async fn run<F>(mut waiting: mpsc::Receiver<WaitingRequest>, call: impl Fn(Vec<Request>) -> F)
where
    F: Future<Output = Result<Vec<Vec<QuotaStatus>>, CountersUnavailable>>,
{
    while let Some(first) = waiting.recv().await {
        let (requests, senders) = next_call(first, &mut waiting);
        if requests.is_empty() {
            continue;
        }
        match call(requests).await {
            Ok(outcomes) => {
                for (sender, outcome) in senders.into_iter().zip(outcomes) {
                    // The client has hung up, or the request has waited too long.
                    let _ = sender.send(Ok(outcome));
                }
            }
            Err(error) => {
                for sender in senders {
                    let _ = sender.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Takes the requests that wait, until the call is full. A request that nobody waits for any more is not charged.
fn next_call(
    first: WaitingRequest,
    waiting: &mut mpsc::Receiver<WaitingRequest>,
) -> (Vec<Request>, Vec<oneshot::Sender<Outcome>>) {
    let (mut requests, mut senders, mut charges) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(WaitingRequest { charges: request, outcome }) = next {
        if !outcome.is_closed() {
            charges += request.len();
            requests.push(request);
            senders.push(outcome);
        }
        next = if charges < FULL_CALL_CHARGES { waiting.try_recv().ok() } else { None };
    }
    (requests, senders)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Mutex;
    use runtime::limits::{QuotaDecision, SubjectKey};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn request(costs: &[u32]) -> Request {
        let policy = Arc::new("all global fixed-window 5/1d on=submission".parse().unwrap());
        let charge = |cost| Charge::new(Arc::clone(&policy), SubjectKey::Global, cost);
        costs.iter().copied().map(charge).collect()
    }

    /// Answers each charge with its cost, so that a request recognises its own outcome.
    fn outcomes(requests: &[Request]) -> Vec<Vec<QuotaStatus>> {
        let status = |charge: &Charge| QuotaStatus {
            decision: QuotaDecision::Allowed,
            remaining: u64::from(charge.cost),
            reset_ms: 0,
        };
        requests.iter().map(|request| request.iter().map(status).collect()).collect()
    }

    /// Calls that end one by one, as `permits` are added, and how many requests each had.
    fn gated() -> (CombinedCalls, Arc<Semaphore>, Arc<Mutex<Vec<usize>>>) {
        let (permits, calls) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (gate, sizes) = (Arc::clone(&permits), Arc::clone(&calls));
        let call = move |requests: Vec<Request>| {
            sizes.lock().push(requests.len());
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(outcomes(&requests))
            }
        };
        (CombinedCalls::start(TIMEOUT, call), permits, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_during_a_call_share_the_next_one_and_each_gets_its_own_outcome() {
        let (combined, permits, calls) = gated();
        let combined = Arc::new(combined);
        let requests: Vec<_> = (0..100)
            .map(|cost| {
                let combined = Arc::clone(&combined);
                tokio::spawn(async move { combined.charge(request(&[cost, cost + 1])).await })
            })
            .collect();
        tokio::task::yield_now().await;
        permits.add_permits(2);
        for (cost, charged) in (0..).zip(requests) {
            let remaining: Vec<u64> =
                charged.await.unwrap().unwrap().iter().map(|status| status.remaining).collect();
            assert_eq!(remaining, [cost, cost + 1]);
        }
        let calls = calls.lock().clone();
        assert_eq!(calls.iter().sum::<usize>(), 100, "{calls:?}");
        assert!(calls.len() <= 2, "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_full_at_a_number_of_charges() {
        let (combined, permits, calls) = gated();
        permits.add_permits(10);
        let large = request(&[1; FULL_CALL_CHARGES]);
        let charges = (0..3).map(|_| combined.charge(large.clone()));
        for outcome in futures_util::future::join_all(charges).await {
            assert_eq!(outcome.unwrap().len(), FULL_CALL_CHARGES);
        }
        assert_eq!(*calls.lock(), [1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_the_timeout_and_is_not_charged_afterwards() {
        let (combined, permits, calls) = gated();
        let combined = Arc::new(combined);
        let in_flight = Arc::clone(&combined);
        let first = tokio::spawn(async move { in_flight.charge(request(&[1])).await });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(*calls.lock(), [1]);
        let behind = (0..2).map(|_| combined.charge(request(&[1])));
        for outcome in futures_util::future::join_all(behind).await {
            outcome.unwrap_err();
        }
        first.await.unwrap().unwrap_err();
        permits.add_permits(10);
        combined.charge(request(&[1])).await.unwrap();
        assert_eq!(*calls.lock(), [1, 1]);
    }

    #[tokio::test]
    async fn an_error_of_a_call_is_that_of_each_request() {
        let call = |_| async { Err(CountersUnavailable("down".to_owned())) };
        let combined = CombinedCalls::start(TIMEOUT, call);
        let charges = (0..3).map(|_| combined.charge(request(&[1])));
        for outcome in futures_util::future::join_all(charges).await {
            assert_eq!(outcome, Err(CountersUnavailable("down".to_owned())));
        }
    }
}
