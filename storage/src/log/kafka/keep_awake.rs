//! Keeps a consumer awake, whatever the machine's clock does.
//!
//! librdkafka waits for a time of the wall clock. If the clock goes back, a wait that has begun lasts longer by as much,
//! unless something happens: a member of a group would send no heartbeats, and not return to it. So another thread, which
//! waits by the monotonic clock, gives the client's main thread something to do that needs no broker, and ends the wait of
//! whoever polls. A connection that does not go on is for `connection_watch`.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_queue_yield,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// Longest time for which a clock that goes back stops a consumer.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `body`, which polls the consumer, while another thread keeps the consumer awake.
pub(crate) fn keep_awake<C: ConsumerContext, T>(
    consumer: &BaseConsumer<C>,
    body: impl FnOnce() -> T,
) -> T {
    let ending = Ending::default();
    thread::scope(|scope| {
        let wake = || {
            while !ending.wait(WAKE_INTERVAL) {
                // The answer does not matter, only that the client's main thread gives one.
                let _ = consumer.subscription();
                end_poll(consumer);
            }
        };
        let thread = thread::Builder::new().name("kafka-awake".into());
        if let Err(error) = thread.spawn_scoped(scope, wake) {
            tracing::warn!(%error, "without a further thread, a clock that goes back stops a kafka consumer");
        }
        // Also if the body panics, since the scope waits for the thread.
        let _end = EndOnDrop(&ending);
        body()
    })
}

/// Lets a poll that waits return without a record.
fn end_poll<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    // SAFETY: the client is alive while it is borrowed, and the reference to its queue is given back. The functions are
    // thread-safe.
    unsafe {
        let queue = rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if !queue.is_null() {
            rd_kafka_queue_yield(queue);
            rd_kafka_queue_destroy(queue);
        }
    }
}

/// Whether the thread is to end.
#[derive(Default)]
struct Ending {
    has_ended: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    /// Waits for the end, at most this long. Returns whether it has come.
    fn wait(&self, timeout: Duration) -> bool {
        let has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(has_ended, timeout, |has_ended| !*has_ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct EndOnDrop<'e>(&'e Ending);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
