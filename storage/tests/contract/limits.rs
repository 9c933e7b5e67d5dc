//! The contract of all counters of rate limits: they decide as the quota alone does.

use std::sync::Arc;
use std::time::Duration;

use runtime::limits::{
    Charge, PersonHash, Policy, QuotaDecision, QuotaStatus, SharedCounters, SubjectKey,
    is_within_all,
};
use uuid::Uuid;

pub type Fixture = Arc<dyn SharedCounters>;

macro_rules! limits_contract {
    ($fixture:expr) => {
        crate::contract::properties! { limits, $fixture;
            a_quota_is_used_up_and_then_refuses_with_a_wait,
            a_request_is_admitted_after_its_wait,
            a_request_costs_one_for_each_item,
            a_request_above_the_capacity_is_never_admitted,
            several_limits_are_charged_together_or_not_at_all,
            looking_costs_nothing,
            concurrent_requests_never_exceed_a_quota,
            subjects_are_counted_apart,
        }
    };
}
pub(crate) use limits_contract;

/// Windows of a day: nothing comes back during a test.
const DAY_QUOTAS: [&str; 4] = [
    "token-bucket 1/1d burst=5",
    "leaky-bucket 1/1d burst=4",
    "fixed-window 5/1d",
    "sliding-window 5/1d",
];

/// Creates a policy that no other test uses.
fn policy(quota: &str) -> Arc<Policy> {
    let text = format!("{} person {quota} by=items on=batch", Uuid::new_v4());
    Arc::new(text.parse().unwrap())
}

fn charge(policy: &Arc<Policy>, person: u8, cost: u32) -> Charge {
    let person = SubjectKey::Person(PersonHash::from_bytes([person; 16]));
    Charge::new(Arc::clone(policy), person, cost)
}

async fn spend(counters: &Fixture, policy: &Arc<Policy>, cost: u32) -> QuotaStatus {
    counters.charge(&[charge(policy, 1, cost)]).await.unwrap()[0]
}

pub async fn a_quota_is_used_up_and_then_refuses_with_a_wait(counters: &Fixture) {
    for quota in DAY_QUOTAS {
        let policy = policy(quota);
        for remaining in (0..5).rev() {
            let status = spend(counters, &policy, 1).await;
            assert_eq!(status.decision, QuotaDecision::Allowed, "{quota}");
            assert_eq!(status.remaining, remaining, "{quota}");
            assert!(status.reset_ms > 0, "{quota}");
        }
        for _ in 0..3 {
            let status = spend(counters, &policy, 1).await;
            assert!(matches!(status.decision, QuotaDecision::Later { .. }), "{quota}: {status:?}");
            assert_eq!(status.remaining, 0, "{quota}");
        }
    }
}

pub async fn a_request_is_admitted_after_its_wait(counters: &Fixture) {
    for quota in [
        "token-bucket 10/1s burst=1",
        "leaky-bucket 10/1s",
        "fixed-window 1/1s",
        "sliding-window 1/1s",
    ] {
        let policy = policy(quota);
        assert_eq!(spend(counters, &policy, 1).await.decision, QuotaDecision::Allowed, "{quota}");
        // On a machine that is slow the unit may be back already, and is then spent again.
        let mut waits = 0;
        while let QuotaDecision::Later { after_ms } = spend(counters, &policy, 1).await.decision {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            waits += 1;
            // The clocks of both sides count milliseconds from different points.
            assert!(waits <= 3, "{quota}");
        }
    }
}

pub async fn a_request_costs_one_for_each_item(counters: &Fixture) {
    let policy = policy("token-bucket 1/1d burst=1500");
    let status = spend(counters, &policy, policy.cost(1_000)).await;
    assert_eq!((status.decision, status.remaining), (QuotaDecision::Allowed, 500));
    let status = spend(counters, &policy, policy.cost(1_000)).await;
    assert!(matches!(status.decision, QuotaDecision::Later { .. }), "{status:?}");
    assert_eq!(spend(counters, &policy, 500).await.remaining, 0);
}

pub async fn a_request_above_the_capacity_is_never_admitted(counters: &Fixture) {
    for quota in DAY_QUOTAS {
        let policy = policy(quota);
        assert_eq!(spend(counters, &policy, 6).await.decision, QuotaDecision::Never, "{quota}");
        assert_eq!(
            spend(counters, &policy, u32::MAX).await.decision,
            QuotaDecision::Never,
            "{quota}"
        );
        assert_eq!(spend(counters, &policy, 5).await.decision, QuotaDecision::Allowed, "{quota}");
    }
}

pub async fn several_limits_are_charged_together_or_not_at_all(counters: &Fixture) {
    let policies = DAY_QUOTAS.map(policy);
    let narrow = policy("fixed-window 2/1d");
    let charges: Vec<Charge> =
        policies.iter().chain([&narrow]).map(|policy| charge(policy, 1, 1)).collect();
    for _ in 0..2 {
        assert!(is_within_all(&counters.charge(&charges).await.unwrap()));
    }
    for _ in 0..5 {
        let refused = counters.charge(&charges).await.unwrap();
        let (last, others) = refused.split_last().unwrap();
        assert!(matches!(last.decision, QuotaDecision::Later { .. }), "{last:?}");
        for other in others {
            assert_eq!((other.decision, other.remaining), (QuotaDecision::Allowed, 3));
        }
    }
}

pub async fn looking_costs_nothing(counters: &Fixture) {
    for quota in DAY_QUOTAS {
        let policy = policy(quota);
        spend(counters, &policy, 2).await;
        for _ in 0..10 {
            assert_eq!(spend(counters, &policy, 0).await.remaining, 3, "{quota}");
        }
    }
}

pub async fn concurrent_requests_never_exceed_a_quota(counters: &Fixture) {
    for quota in DAY_QUOTAS {
        let policy = policy(quota);
        let requests: Vec<_> = (0..16)
            .map(|_| {
                let (counters, policy) = (Arc::clone(counters), Arc::clone(&policy));
                tokio::spawn(async move { spend(&counters, &policy, 1).await.decision })
            })
            .collect();
        let mut allowed = 0;
        for request in requests {
            allowed += u32::from(request.await.unwrap() == QuotaDecision::Allowed);
        }
        assert_eq!(allowed, 5, "{quota}");
    }
}

pub async fn subjects_are_counted_apart(counters: &Fixture) {
    let policy = policy("fixed-window 1/1d");
    for person in 0..10 {
        let statuses = counters.charge(&[charge(&policy, person, 1)]).await.unwrap();
        assert!(is_within_all(&statuses), "{person}");
    }
}
