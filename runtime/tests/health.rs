//! The hysteresis of readiness, on a paused clock.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use runtime::health::{Health, HealthConfig};
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

const UNREADY_AFTER: Duration = Duration::from_secs(3);
const READY_AFTER: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(1);

fn health() -> Health {
    Health::new(&HealthConfig { unready_after: UNREADY_AFTER, ready_after: READY_AFTER })
}

#[tokio::test(start_paused = true)]
async fn a_check_starts_unready_and_is_ready_at_once_when_first_set() {
    let health = health();
    assert!(!health.is_ready(), "no check is registered yet");
    let check = health.check("log");
    assert!(!health.is_ready());
    check.set_ready();
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_is_hidden() {
    let health = health();
    let check = health.check("log");
    check.set_ready();
    check.set_unready("no broker");
    advance(UNREADY_AFTER - TICK).await;
    assert!(health.is_ready());
    check.set_ready();
    advance(UNREADY_AFTER).await;
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_long_failure_shows_even_if_reported_repeatedly() {
    let health = health();
    let check = health.check("log");
    check.set_ready();
    let end = Instant::now() + UNREADY_AFTER;
    while Instant::now() < end {
        check.set_unready("no broker");
        assert!(health.is_ready());
        advance(UNREADY_AFTER / 10).await;
    }
    assert!(!health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn after_a_visible_failure_a_check_must_stay_healthy_to_be_ready() {
    let health = health();
    let check = health.check("log");
    check.set_ready();
    check.set_unready("no broker");
    // The check becomes unready without being read.
    advance(UNREADY_AFTER).await;
    check.set_ready();
    assert!(!health.is_ready());
    advance(READY_AFTER - TICK).await;
    assert!(!health.is_ready());
    advance(TICK).await;
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn draining_shows_at_once_and_permanently() {
    let drained = health();
    drained.check("log").set_ready();
    drained.drain();
    assert!(!drained.is_ready());

    let stopped = health();
    stopped.check("log").set_ready();
    let stop = CancellationToken::new();
    stopped.drain_on(stop.clone());
    assert!(stopped.is_ready());
    stop.cancel();
    assert!(!stopped.is_ready());
}

#[tokio::test(start_paused = true)]
async fn checks_with_the_same_name_are_one() {
    let health = health();
    health.check("log");
    health.check("log").set_ready();
    assert!(health.is_ready());
    health.check("store");
    assert!(!health.is_ready());
}

/// Reference implementation over the whole history: the last moment at which the check had been healthy, or failing,
/// for long enough decides.
fn reference(history: &[(u64, bool)], now_ms: u64) -> bool {
    let mut ready = false;
    let mut was_ready = false;
    for (index, (at, healthy)) in history.iter().enumerate() {
        let until = history.get(index + 1).map_or(now_ms, |(next, _)| *next);
        let run_start = history[..=index]
            .iter()
            .rev()
            .take_while(|(_, earlier)| earlier == healthy)
            .last()
            .map_or(*at, |(first, _)| *first);
        let lasted = Duration::from_millis(until - run_start);
        match healthy {
            true if !was_ready => (ready, was_ready) = (true, true),
            true if lasted >= READY_AFTER => ready = true,
            // Before the first readiness there is none to lose.
            false if lasted >= UNREADY_AFTER => ready = false,
            _ => {}
        }
    }
    ready
}

proptest! {
    #[test]
    fn readiness_equals_the_reference_for_any_sequence_of_changes_and_reads(
        steps in prop::collection::vec((0_u64..2_000, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let health = health();
            let check = health.check("log");
            let mut history = Vec::new();
            let mut now_ms = 0;
            for (pause, healthy, read) in steps {
                match healthy {
                    true => check.set_ready(),
                    false => check.set_unready("bad"),
                }
                history.push((now_ms, healthy));
                advance(Duration::from_millis(pause)).await;
                now_ms += pause;
                if read {
                    prop_assert_eq!(health.is_ready(), reference(&history, now_ms));
                }
            }
            prop_assert_eq!(health.is_ready(), reference(&history, now_ms));
            Ok(())
        })?;
    }
}
