//! Keeps a consumer awake, whatever the machine's clock does.
//!
//! librdkafka waits for a time of the wall clock. If the clock goes back, a wait that has begun lasts longer by as much,
//! unless something happens: a member of a group would send no heartbeats, and not return to it. So another thread, which
//! waits by the monotonic clock, gives the client's main thread something to do that needs no broker, and interrupts the
//! wait of whoever polls. Connections that stay disconnected are watched by `connection_watch`.

use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
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
    let stop = StopSignal::default();
    thread::scope(|scope| {
        let wake = || {
            while !stop.wait(WAKE_INTERVAL) {
                // The answer does not matter, only that the client's main thread gives one.
                let _ = consumer.subscription();
                interrupt_poll(consumer);
            }
        };
        let thread = thread::Builder::new().name("kafka-awake".into());
        if let Err(error) = thread.spawn_scoped(scope, wake) {
            tracing::warn!(%error, "failed to spawn the kafka wake-up thread");
        }
        // Also if the body panics, since the scope waits for the thread.
        let _stop = StopOnDrop(&stop);
        body()
    })
}

/// Interrupts librdkafka's wait. The poll goes on for the rest of its timeout, by the monotonic clock.
fn interrupt_poll<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
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

/// Ends the thread.
#[derive(Default)]
struct StopSignal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// Waits for the signal, at most this long. Returns whether it was given.
    fn wait(&self, timeout: Duration) -> bool {
        let mut is_set = self.is_set.lock();
        self.changed.wait_while_for(&mut is_set, |is_set| !*is_set, timeout);
        *is_set
    }
}

struct StopOnDrop<'e>(&'e StopSignal);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.is_set.lock() = true;
        self.0.changed.notify_all();
    }
}
