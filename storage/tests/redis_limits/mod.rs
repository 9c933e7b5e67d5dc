//! Counters of rate limits in Redis: the script decides as the quota in Rust does, processes agree, and outages show.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Script};
use runtime::limits::{
    Algorithm, Charge, EndpointClass, PersonHash, Policy, Quota, QuotaDecision, QuotaStatus, Scope,
    SharedCounters, State, SubjectKey, is_within_all,
};
use schemas::redis::{LIMITS_SCRIPT, limit_key};
use storage::limits::redis::RedisCounters;

use crate::redis_server::Server;
use crate::wait::{TEST_TIMEOUT, until};

/// Random sequences of requests that the script and the quota are compared in.
const SEQUENCES: usize = 200;

/// One sequence: several quotas, the time of the first request, and then pauses and costs.
type Sequence = (Vec<Quota>, u64, Vec<(u64, Vec<Vec<u32>>)>);

fn sequences() -> impl Strategy<Value = Sequence> {
    let quota = (0..4_usize, 1..200_u32, 1_000..100_000_u64, 0..100_u32).prop_map(
        |(algorithm, limit, window_ms, burst)| {
            let algorithm = Algorithm::ALL[algorithm];
            let burst = if algorithm == Algorithm::TokenBucket { burst.max(1) } else { burst };
            Quota::new(algorithm, limit, window_ms, Some(burst)).unwrap()
        },
    );
    let pause_ms = prop_oneof![Just(0), 0..100_u64, 0..20_000_u64, 0..1_000_000_u64];
    let costs = prop::collection::vec(0..40_u32, 4);
    let call = (pause_ms, prop::collection::vec(costs, 1..4));
    let calls = prop::collection::vec(call, 1..40);
    (prop::collection::vec(quota, 1..5), 1_700_000_000_000..1_900_000_000_000_u64, calls)
}

/// The script with a clock that the test sets, and keys that do not expire by the server's own.
fn script_with_clock() -> Script {
    let (clock, expiry) = (r#"redis.call("TIME")"#, r#"format("%d", expiry)"#);
    assert!(LIMITS_SCRIPT.contains(clock) && LIMITS_SCRIPT.contains(expiry));
    let script = LIMITS_SCRIPT
        .replace(clock, r#"redis.call("MGET", "seconds", "microseconds")"#)
        .replace(expiry, r#""3600000""#);
    Script::new(&script)
}

async fn connect(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_decides_each_request_of_a_call_as_the_quotas_do_one_after_the_other() {
    let server = Server::running().await;
    let mut redis = connect(&server).await;
    let script = script_with_clock();
    let mut runner = TestRunner::default();
    for sequence in 0..SEQUENCES {
        let (quotas, start_ms, calls) = sequences().new_tree(&mut runner).unwrap().current();
        let mut states: Vec<State> =
            quotas.iter().map(|quota| State::fresh(quota, start_ms)).collect();
        let mut now_ms = start_ms;
        for (pause_ms, requests) in calls {
            now_ms += pause_ms;
            let clock = [("seconds", now_ms / 1000), ("microseconds", now_ms % 1000 * 1000 + 999)];
            let () = redis.mset(&clock).await.unwrap();
            let mut call = script.prepare_invoke();
            call.arg(quotas.len());
            for quota in &quotas {
                call.arg(quota.algorithm().name()).arg(quota.limit()).arg(quota.window_ms());
                call.arg(quota.burst());
            }
            for costs in &requests {
                call.arg(quotas.len());
                for (index, cost) in costs.iter().take(quotas.len()).enumerate() {
                    call.key(format!("{sequence}.{index}")).arg(index + 1).arg(*cost);
                }
            }
            let reply: Vec<i64> = call.invoke_async(&mut redis).await.unwrap();
            let expected: Vec<i64> = requests
                .iter()
                .flat_map(|costs| decide(&quotas, &mut states, now_ms, costs))
                .collect();
            assert_eq!(reply, expected, "{quotas:?} {requests:?} at {now_ms}");
        }
    }
}

/// Decides a request by the quotas alone, and returns what the script would.
fn decide(quotas: &[Quota], states: &mut [State], now_ms: u64, costs: &[u32]) -> Vec<i64> {
    let decisions: Vec<QuotaDecision> = quotas
        .iter()
        .zip(&mut *states)
        .zip(costs)
        .map(|((quota, state), cost)| quota.decide(state, now_ms, *cost))
        .collect();
    let within_all = decisions.iter().all(|decision| *decision == QuotaDecision::Allowed);
    let mut reply = Vec::new();
    for (index, decision) in decisions.into_iter().enumerate() {
        if within_all {
            states[index].charge(&quotas[index], costs[index]);
        }
        let QuotaStatus { remaining, reset_ms, .. } =
            quotas[index].status(&states[index], now_ms, decision);
        reply.push(match decision {
            QuotaDecision::Allowed => 0,
            QuotaDecision::Later { after_ms } => after_ms as i64,
            QuotaDecision::Never => -1,
        });
        reply.extend([remaining as i64, reset_ms as i64]);
    }
    reply
}

/// Whom the counter of each scope is for.
fn subject(scope: Scope) -> SubjectKey {
    match scope {
        Scope::Global => SubjectKey::Global,
        Scope::Address => SubjectKey::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        Scope::Person => SubjectKey::Person(PersonHash::from_bytes([7; 16])),
        Scope::Organisation => SubjectKey::Organisation("a school".into()),
        Scope::Endpoint => SubjectKey::Endpoint(EndpointClass::Submission),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_together_admit_exactly_what_one_would_for_each_algorithm_and_scope() {
    let server = Server::running().await;
    let processes: Vec<Arc<RedisCounters>> = [
        Arc::new(RedisCounters::connect(&server.config()).await),
        Arc::new(RedisCounters::connect(&server.config()).await),
    ]
    .into();
    for algorithm in Algorithm::ALL {
        for scope in Scope::ALL {
            let (name, burst) = (algorithm.name(), 20);
            let text = format!("{scope}-{name} {scope} {name} 30/1d burst={burst} on=submission");
            let policy: Arc<Policy> = Arc::new(text.parse().unwrap());
            let requests: Vec<_> = (0..120)
                .map(|number| {
                    let process = Arc::clone(&processes[number % 2]);
                    let charge = Charge::new(Arc::clone(&policy), subject(*scope), 1);
                    tokio::spawn(async move {
                        let statuses = process.charge(&[charge]).await.unwrap();
                        u64::from(is_within_all(&statuses))
                    })
                })
                .collect();
            let mut admitted = 0;
            for request in requests {
                admitted += request.await.unwrap();
            }
            assert_eq!(admitted, policy.quota.capacity(), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_ten_thousand_counters_is_charged() {
    let server = Server::running().await;
    let counters = RedisCounters::connect(&server.config()).await;
    let policy: Arc<Policy> = Arc::new("p person fixed-window 1/1d on=batch".parse().unwrap());
    let charges: Vec<Charge> = (0..10_000_u128)
        .map(|person| {
            let person = SubjectKey::Person(PersonHash::from_bytes(person.to_be_bytes()));
            Charge::new(Arc::clone(&policy), person, 1)
        })
        .collect();
    for is_first in [true, false] {
        let statuses = counters.charge(&charges).await.unwrap();
        assert_eq!((statuses.len(), is_within_all(&statuses)), (charges.len(), is_first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_whose_window_has_changed_begins_anew() {
    let server = Server::running().await;
    let counters = RedisCounters::connect(&server.config()).await;
    for algorithm in Algorithm::ALL {
        for window in ["1m", "1d", "1h", "1s"] {
            let text = format!("all global {} 1/{window} burst=1 on=submission", algorithm.name());
            let policy: Arc<Policy> = Arc::new(text.parse().unwrap());
            let charge = [Charge::new(policy, SubjectKey::Global, 1)];
            let statuses = counters.charge(&charge).await.unwrap();
            assert!(is_within_all(&statuses), "{text}: {statuses:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_counters_are_unavailable_without_delay_and_come_back() {
    let mut server = Server::running().await;
    let counters = RedisCounters::connect(&server.config()).await;
    let policy: Arc<Policy> =
        Arc::new("all global fixed-window 5/1d on=submission".parse().unwrap());
    let charge = [Charge::new(policy, SubjectKey::Global, 1)];
    assert!(is_within_all(&counters.charge(&charge).await.unwrap()));

    server.kill();
    counters.charge(&charge).await.unwrap_err();
    let started = Instant::now();
    for _ in 0..100 {
        counters.charge(&charge).await.unwrap_err();
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());

    server.start().await;
    until("limits are counted again", TEST_TIMEOUT, async || {
        counters.charge(&charge).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_expires_once_all_units_are_back_and_damage_counts_as_nothing_spent() {
    let server = Server::running().await;
    let counters = RedisCounters::connect(&server.config()).await;
    let mut redis = connect(&server).await;
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        let policy: Policy = format!("all global {name} 60/1m burst=9 on=read").parse().unwrap();
        let charge = [Charge::new(Arc::new(policy), SubjectKey::Global, 3)];
        let key = limit_key("all", name, 60_000, &"all");
        let status = counters.charge(&charge).await.unwrap()[0];
        let left_ms: u64 = redis.pttl(&key).await.unwrap();
        assert!(left_ms > 0 && left_ms <= status.reset_ms + 1_000, "{name}: {left_ms}");
        for damage in ["", "none", "1 2 3"] {
            let () = redis.set(&key, damage).await.unwrap();
            assert_eq!(counters.charge(&charge).await.unwrap()[0].remaining, status.remaining);
        }
    }
}
