//! Laws of all algorithms, and of the counters in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Requests over time: the pause before each, and its cost.
type Arrivals = Vec<(u64, u32)>;

fn quotas() -> impl Strategy<Value = Quota> {
    (0..4_usize, 1..50_u32, 1_000..20_000_u64, 0..40_u32).prop_map(
        |(algorithm, limit, window_ms, burst)| {
            let algorithm = Algorithm::ALL[algorithm];
            let burst = if algorithm == Algorithm::TokenBucket { burst.max(1) } else { burst };
            Quota::new(algorithm, limit, window_ms, Some(burst)).unwrap()
        },
    )
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    prop::collection::vec((prop_oneof![Just(0), 0..50_u64, 0..5_000_u64], 1..6_u32), 1..200)
}

/// Returns the time and cost of each admitted request.
fn admitted(quota: &Quota, start_ms: u64, arrivals: &Arrivals) -> Vec<(u64, u64)> {
    let mut state = State::fresh(quota, start_ms);
    let mut now_ms = start_ms;
    let mut admitted = Vec::new();
    for (pause_ms, cost) in arrivals {
        now_ms += pause_ms;
        if quota.decide(&mut state, now_ms, *cost) == QuotaDecision::Allowed {
            state.charge(quota, *cost);
            admitted.push((now_ms, u64::from(*cost)));
        }
    }
    admitted
}

fn policy(text: &str) -> Arc<Policy> {
    Arc::new(text.parse().unwrap())
}

fn address(number: u32) -> SubjectKey {
    SubjectKey::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
}

proptest! {
    #[test]
    fn no_window_has_more_than_limit_and_burst(
        quota in quotas(), start_ms in 0..2_000_000_000_000_u64, arrivals in arrivals(),
    ) {
        let admitted = admitted(&quota, start_ms, &arrivals);
        let allowance = u64::from(quota.limit()) + u64::from(quota.burst());
        let window_of = |time_ms: u64| time_ms / quota.window_ms();
        for (index, (first_ms, _)) in admitted.iter().enumerate() {
            let is_within = |(time_ms, _): &&(u64, u64)| match quota.algorithm() {
                Algorithm::FixedWindow => window_of(*time_ms) == window_of(*first_ms),
                _ => *time_ms < first_ms + quota.window_ms(),
            };
            let spent: u64 = admitted[index..].iter().take_while(is_within).map(|(_, cost)| cost).sum();
            prop_assert!(spent <= allowance, "{spent} of {allowance} from {first_ms}: {quota:?}");
        }
    }

    #[test]
    fn a_request_is_admitted_after_its_wait_and_not_before(
        quota in quotas(), start_ms in 0..2_000_000_000_000_u64, arrivals in arrivals(), cost in 1..60_u32,
    ) {
        let mut state = State::fresh(&quota, start_ms);
        let mut now_ms = start_ms;
        for (pause_ms, cost) in &arrivals {
            now_ms += pause_ms;
            if quota.decide(&mut state, now_ms, *cost) == QuotaDecision::Allowed {
                state.charge(&quota, *cost);
            }
        }
        match quota.decide(&mut state.clone(), now_ms, cost) {
            QuotaDecision::Allowed => {}
            QuotaDecision::Never => prop_assert!(u64::from(cost) > quota.capacity()),
            QuotaDecision::Later { after_ms } => {
                let after = |ms: u64| quota.decide(&mut state.clone(), now_ms + ms, cost);
                prop_assert_eq!(after(after_ms), QuotaDecision::Allowed);
                prop_assert_ne!(after(after_ms - 1), QuotaDecision::Allowed);
                // `Retry-After` is in whole seconds, rounded up.
                let retry_after_s = after_ms.div_ceil(1000);
                prop_assert_eq!(after(retry_after_s * 1000), QuotaDecision::Allowed);
                prop_assert_ne!(after((retry_after_s - 1) * 1000), QuotaDecision::Allowed);
            }
        }
    }

    #[test]
    fn after_the_reset_everything_is_back(quota in quotas(), start_ms in 0..2_000_000_000_000_u64, arrivals in arrivals()) {
        let mut state = State::fresh(&quota, start_ms);
        let mut now_ms = start_ms;
        for (pause_ms, cost) in &arrivals {
            now_ms += pause_ms;
            if quota.decide(&mut state, now_ms, *cost) == QuotaDecision::Allowed {
                state.charge(&quota, *cost);
            }
        }
        let reset_ms = quota.status(&state, now_ms, QuotaDecision::Allowed).reset_ms;
        let capacity = u32::try_from(quota.capacity()).unwrap();
        prop_assert_eq!(quota.decide(&mut state.clone(), now_ms + reset_ms, capacity), QuotaDecision::Allowed);
        if reset_ms > 0 {
            prop_assert_ne!(quota.decide(&mut state, now_ms + reset_ms - 1, capacity), QuotaDecision::Allowed);
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_back(quota in quotas(), back_ms in 0..100_000_u64) {
        let now_ms = 1_000_000_000;
        let mut state = State::fresh(&quota, now_ms);
        let capacity = u32::try_from(quota.capacity()).unwrap();
        prop_assert_eq!(quota.decide(&mut state, now_ms, capacity), QuotaDecision::Allowed);
        state.charge(&quota, capacity);
        prop_assert_ne!(quota.decide(&mut state, now_ms - back_ms, 1), QuotaDecision::Allowed);
    }

    #[test]
    fn counters_in_memory_decide_as_one_state_for_each_key(
        quota in quotas(), arrivals in prop::collection::vec((0..500_u64, 0..3_u32, 1..6_u32), 1..200),
    ) {
        let counters = LocalCounters::new(1_000);
        let policy = Arc::new(Policy { quota, ..Policy::clone(&policy("a address fixed-window 1/1s on=read")) });
        let mut states = [State::fresh(&quota, 0); 3];
        let mut now_ms = 0;
        for (pause_ms, client, cost) in arrivals {
            now_ms += pause_ms;
            let state = &mut states[client as usize];
            let decision = quota.decide(state, now_ms, cost);
            if decision == QuotaDecision::Allowed {
                state.charge(&quota, cost);
            }
            let charge = Charge::new(Arc::clone(&policy), address(client), cost);
            let expected = quota.status(state, now_ms, decision);
            prop_assert_eq!(counters.charge_at(&[charge], now_ms), vec![expected]);
        }
    }
}

#[test]
fn a_batch_costs_one_for_each_item() {
    let policy = policy("submissions address token-bucket 600/60s burst=1000 by=items on=batch");
    let counters = LocalCounters::default();
    let charge = |items| [Charge::new(Arc::clone(&policy), address(1), policy.cost(items))];
    let status = |items| counters.charge_at(&charge(items), 0)[0];
    assert_eq!(status(1_001).decision, QuotaDecision::Never);
    assert_eq!((status(1_000).decision, status(0).remaining), (QuotaDecision::Allowed, 0));
    assert_eq!(status(1).decision, QuotaDecision::Later { after_ms: 100 });
}

#[test]
fn several_limits_are_charged_together_or_not_at_all() {
    let (wide, narrow) = (
        policy("wide global fixed-window 10/60s on=read"),
        policy("narrow address fixed-window 2/60s on=read"),
    );
    let counters = LocalCounters::default();
    let charge = |client| {
        [
            Charge::new(Arc::clone(&wide), SubjectKey::Global, 1),
            Charge::new(Arc::clone(&narrow), address(client), 1),
        ]
    };
    assert!(is_within_all(&counters.charge_at(&charge(1), 0)));
    assert!(is_within_all(&counters.charge_at(&charge(1), 0)));
    for _ in 0..100 {
        let refused = counters.charge_at(&charge(1), 0);
        assert_eq!((refused[0].decision, refused[0].remaining), (QuotaDecision::Allowed, 8));
        assert_eq!(refused[1].decision, QuotaDecision::Later { after_ms: 60_000 });
    }
    assert!(is_within_all(&counters.charge_at(&charge(2), 0)));
    assert_eq!(counters.charge_at(&[Charge::new(wide, SubjectKey::Global, 0)], 0)[0].remaining, 7);
}

#[test]
fn a_flood_of_addresses_takes_bounded_memory_and_forgives_nobody() {
    let policy = policy("a address fixed-window 1/60s on=read");
    let counters = LocalCounters::new(640);
    let charge = |client| [Charge::new(Arc::clone(&policy), address(client), 1)];
    assert!(is_within_all(&counters.charge_at(&charge(0), 0)));
    for client in 1..100_000 {
        counters.charge_at(&charge(client), 1);
    }
    assert!(counters.len() <= 640 + 64 * 64, "{}", counters.len());
    // Whoever was admitted is limited still, with a counter of its own or a shared one.
    for client in 0..100_000 {
        assert!(!is_within_all(&counters.charge_at(&charge(client), 2)), "{client}");
    }
    // Once all windows are over, there is room again.
    assert!(is_within_all(&counters.charge_at(&charge(77), 60_001)));
}

#[test]
fn concurrent_requests_are_all_counted() {
    let policies = [
        policy("a global fixed-window 100/1d on=read"),
        policy("b address fixed-window 100/1d on=read"),
    ];
    let counters = LocalCounters::default();
    let charges: Vec<Charge> = [SubjectKey::Global, address(1)]
        .into_iter()
        .zip(policies)
        .map(|(subject, policy)| Charge::new(policy, subject, 1))
        .collect();
    let allowed: usize = std::thread::scope(|scope| {
        let send = || (0..50).filter(|_| is_within_all(&counters.charge_at(&charges, 1))).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(allowed, 100);
}
