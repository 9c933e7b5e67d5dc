//! The hysteresis of readiness, on a clock that only moves when told to.

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
async fn a_check_is_unready_until_it_is_first_set_ready_and_then_ready_at_once() {
    let health = health();
    assert!(!health.is_ready(), "nobody can say yet");
    let check = health.check("log");
    assert!(!health.is_ready());
    check.set_ready();
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_does_not_show() {
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
async fn a_long_failure_shows_even_when_it_is_reported_again_and_again() {
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
async fn after_a_failure_that_showed_a_check_must_stay_well_to_be_ready() {
    let health = health();
    let check = health.check("log");
    check.set_ready();
    check.set_unready("no broker");
    // Nobody looks while it becomes unready.
    advance(UNREADY_AFTER).await;
    check.set_ready();
    assert!(!health.is_ready());
    advance(READY_AFTER - TICK).await;
    assert!(!health.is_ready());
    advance(TICK).await;
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn draining_shows_at_once_and_for_good() {
    let drained = health();
    drained.check("log").set_ready();
    drained.drain();
    assert!(!drained.is_ready());

    let stopped = health();
    stopped.check("log").set_ready();
    let stop = CancellationToken::new();
    stopped.drain_with(stop.clone());
    assert!(stopped.is_ready());
    stop.cancel();
    assert!(!stopped.is_ready());
}

#[tokio::test(start_paused = true)]
async fn one_name_is_one_check() {
    let health = health();
    health.check("log");
    health.check("log").set_ready();
    assert!(health.is_ready());
    health.check("store");
    assert!(!health.is_ready());
}

/// What readiness is, said over the whole past instead of step by step: the last moment at which the check had been
/// well, or not well, for long enough decides.
fn by_definition(told: &[(u64, bool)], now_ms: u64) -> bool {
    let mut ready = false;
    let mut was_ready = false;
    for (place, (at, well)) in told.iter().enumerate() {
        let until = told.get(place + 1).map_or(now_ms, |(next, _)| *next);
        let runs_since = told[..=place]
            .iter()
            .rev()
            .take_while(|(_, before)| before == well)
            .last()
            .map_or(*at, |(first, _)| *first);
        let lasted = Duration::from_millis(until - runs_since);
        match well {
            true if !was_ready => (ready, was_ready) = (true, true),
            true if lasted >= READY_AFTER => ready = true,
            // Before it was ever ready it has nothing to lose.
            false if lasted >= UNREADY_AFTER => ready = false,
            _ => {}
        }
    }
    ready
}

proptest! {
    #[test]
    fn however_a_check_is_set_and_whoever_looks_it_says_what_the_definition_says(
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
            let mut told = Vec::new();
            let mut now_ms = 0;
            for (wait, well, look) in steps {
                match well {
                    true => check.set_ready(),
                    false => check.set_unready("bad"),
                }
                told.push((now_ms, well));
                advance(Duration::from_millis(wait)).await;
                now_ms += wait;
                if look {
                    prop_assert_eq!(health.is_ready(), by_definition(&told, now_ms));
                }
            }
            prop_assert_eq!(health.is_ready(), by_definition(&told, now_ms));
            Ok(())
        })?;
    }
}
