#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::{AgentDigest, BudgetId, SignalOrigin};

use super::*;

const UNTIL_MS: u64 = 1_795_212_000_123;

fn window() -> SummaryWindow {
    SummaryWindow::new(UNTIL_MS, 3).unwrap()
}

fn person(number: u32) -> PersonKey {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PersonKey::from_bytes(bytes)
}

fn signal(who: u32, age_ms: u64, ballot: Option<u64>, network: Option<u64>) -> Signal {
    Signal {
        budget: BudgetId::parse("taxes").unwrap(),
        person: person(who),
        accepted_at_ms: UNTIL_MS - age_ms,
        action: ballot
            .map_or(SignalAction::Withdraw, |ballot| SignalAction::Allocate(BallotDigest(ballot))),
        origin: SignalOrigin {
            network: network.map(NetworkDigest),
            agent: Some(AgentDigest(1)),
            identity: IdentityLevel::Code,
        },
    }
}

fn summary_of(signals: &[Signal], bounds: SummaryBounds) -> SignalSummary {
    let mut fold = SummaryFold::new(window(), bounds);
    signals.iter().for_each(|signal| fold.add(signal));
    fold.finish()
}

/// The summary by its definition, in as much memory and time as it takes.
fn naive(signals: &[Signal]) -> SignalSummary {
    let (read, shown) = (window().read_ms(), window().shown_ms());
    let signals: Vec<&Signal> =
        signals.iter().filter(|signal| read.contains(&signal.accepted_at_ms)).collect();
    let in_span: Vec<&Signal> =
        signals.iter().copied().filter(|signal| shown.contains(&signal.accepted_at_ms)).collect();
    let new_in = |span: Range<u64>| {
        let people: BTreeSet<PersonKey> = signals.iter().map(|signal| signal.person).collect();
        let first = |person: &PersonKey| {
            let own = signals.iter().filter(|signal| signal.person == *person);
            own.map(|signal| signal.accepted_at_ms).min().unwrap()
        };
        people.iter().filter(|person| span.contains(&first(person))).count() as u64
    };
    let new_people = (0..3)
        .map(|hour| {
            let start_ms = UNTIL_MS - (3 - hour) * HOUR_MS;
            let day_before = start_ms - 24 * HOUR_MS;
            NewPeople {
                start_ms,
                people: new_in(start_ms..start_ms + HOUR_MS),
                people_day_before: new_in(day_before..day_before + HOUR_MS),
            }
        })
        .collect();
    let people = |of: &[&Signal]| {
        of.iter().map(|signal| signal.person).collect::<BTreeSet<_>>().len() as u64
    };
    let network = |signal: &Signal| signal.origin.network.map(|digest| digest.0);
    let ballot = |signal: &Signal| match signal.action {
        SignalAction::Allocate(ballot) => Some(ballot.0),
        SignalAction::Withdraw => None,
    };
    let levels = IdentityLevel::ALL.into_iter().filter_map(|level| {
        let of_level: Vec<&Signal> =
            in_span.iter().copied().filter(|signal| signal.origin.identity == level).collect();
        let submissions = of_level.len() as u64;
        (submissions > 0).then(|| LevelSummary { level, people: people(&of_level), submissions })
    });
    SignalSummary {
        shown_ms: shown.clone(),
        read_ms: read.clone(),
        people: people(&in_span),
        people_with_network: {
            let of_known = in_span.iter().copied().filter(|signal| network(signal).is_some());
            people(&of_known.collect::<Vec<_>>())
        },
        submissions: in_span.len() as u64,
        withdrawals: in_span.iter().filter(|signal| ballot(signal).is_none()).count() as u64,
        without_network: in_span.iter().filter(|signal| network(signal).is_none()).count() as u64,
        new_people,
        networks: naive_groups(&in_span, network, ballot, NetworkDigest),
        ballots: naive_groups(&in_span, ballot, network, BallotDigest),
        levels: levels.collect(),
        truncated: Truncation::default(),
    }
}

fn naive_groups<K: Copy + Ord>(
    signals: &[&Signal],
    key: impl Fn(&Signal) -> Option<u64>,
    other: impl Fn(&Signal) -> Option<u64>,
    wrap: impl Fn(u64) -> K,
) -> Vec<GroupSummary<K>> {
    let mut groups: BTreeMap<u64, Vec<&Signal>> = BTreeMap::new();
    for signal in signals {
        if let Some(key) = key(signal) {
            groups.entry(key).or_default().push(signal);
        }
    }
    let distinct = |values: BTreeSet<u64>| values.len() as u64;
    let mut summaries: Vec<GroupSummary<K>> = groups
        .into_iter()
        .map(|(key, of)| GroupSummary {
            key: wrap(key),
            people: of.iter().map(|signal| signal.person).collect::<BTreeSet<_>>().len() as u64,
            submissions: of.len() as u64,
            others: distinct(of.iter().filter_map(|signal| other(signal)).collect()),
            agents: distinct(of.iter().filter_map(|s| Some(s.origin.agent?.0)).collect()),
            first_ms: of.iter().map(|signal| signal.accepted_at_ms).min().unwrap(),
            last_ms: of.iter().map(|signal| signal.accepted_at_ms).max().unwrap(),
        })
        .filter(|group| group.people > 1)
        .collect();
    summaries.sort_by_key(|group| {
        (std::cmp::Reverse(group.people), std::cmp::Reverse(group.submissions), group.key)
    });
    summaries.truncate(MAX_LISTED);
    summaries
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let digest = || prop::option::weighted(0.9, 0u64..40);
    // From before the time that is read until after its end.
    let at = prop_oneof![
        UNTIL_MS - 60 * HOUR_MS..UNTIL_MS + HOUR_MS,
        UNTIL_MS - 4 * HOUR_MS..UNTIL_MS + 2,
        Just(UNTIL_MS - 3 * HOUR_MS),
        Just(UNTIL_MS - 3 * HOUR_MS - 1),
    ];
    (0u32..60, at, digest(), digest(), digest(), 0..IdentityLevel::ALL.len()).prop_map(
        |(who, at, ballot, network, agent, level)| {
            let mut made = signal(who, 0, ballot, network);
            made.accepted_at_ms = at;
            made.origin.agent = agent.map(AgentDigest);
            made.origin.identity = IdentityLevel::ALL[level];
            made
        },
    )
}

proptest! {
    #[test]
    fn the_fold_equals_the_definition_in_any_order(
        mut signals in prop::collection::vec(any_signal(), 0..300),
    ) {
        let expected = naive(&signals);
        prop_assert_eq!(&summary_of(&signals, SummaryBounds::default()), &expected);
        signals.reverse();
        prop_assert_eq!(&summary_of(&signals, SummaryBounds::default()), &expected);
    }

    #[test]
    fn bounds_hold_and_numbers_are_never_too_high(
        signals in prop::collection::vec(any_signal(), 0..300),
        people in 1usize..80,
        members in 16usize..200,
    ) {
        let bounds = SummaryBounds { people, members };
        let mut fold = SummaryFold::new(window(), bounds);
        for signal in &signals {
            fold.add(signal);
            prop_assert!(fold.people.len() <= people);
            prop_assert!(fold.networks.members() <= members && fold.ballots.members() <= members);
        }
        let (bounded, exact) = (fold.finish(), naive(&signals));
        prop_assert!(bounded.people <= exact.people);
        prop_assert_eq!(bounded.submissions, exact.submissions);
        if !bounded.truncated.people {
            prop_assert_eq!((bounded.people, &bounded.new_people), (exact.people, &exact.new_people));
        }
        if !bounded.truncated.networks {
            prop_assert_eq!(&bounded.networks, &exact.networks);
        }
        if !bounded.truncated.ballots {
            prop_assert_eq!(&bounded.ballots, &exact.ballots);
        }
    }
}

#[test]
fn a_flood_of_networks_does_not_hide_a_large_network_that_begins_after_it() {
    let bounds = SummaryBounds { people: 1_000_000, members: 3_000 };
    let flood = (0..20_000u32).map(|n| signal(n, 1_000, Some(u64::from(n)), Some(u64::from(n))));
    let large = (0..500u32).map(|n| signal(100_000 + n, 500, Some(7), Some(u64::MAX)));
    // The flood goes on while the large network submits.
    let more = (30_000..50_000u32).map(|n| signal(n, 100, Some(u64::from(n)), Some(u64::from(n))));
    let signals: Vec<Signal> = flood.chain(large).chain(more).collect();
    let summary = summary_of(&signals, bounds);
    assert!(summary.truncated.networks && !summary.truncated.people);
    let first = &summary.networks[0];
    assert_eq!((first.key, first.people, first.others), (NetworkDigest(u64::MAX), 500, 1));
    assert_eq!(summary.people, 40_500);
}

#[test]
fn one_giant_group_is_cut_and_said_to_be() {
    let bounds = SummaryBounds { people: 1_000_000, members: 1_000 };
    let signals: Vec<Signal> = (0..5_000).map(|n| signal(n, 1, Some(1), Some(1))).collect();
    let summary = summary_of(&signals, bounds);
    assert!(summary.truncated.networks && summary.truncated.ballots);
    assert_eq!(summary.networks[0].submissions, 5_000);
    assert!((400..=500).contains(&summary.networks[0].people));
}

#[test]
fn a_window_has_1_to_120_hours() {
    assert_eq!(SummaryWindow::new(UNTIL_MS, 0), None);
    assert_eq!(SummaryWindow::new(UNTIL_MS, MAX_HOURS + 1), None);
    let longest = SummaryWindow::new(UNTIL_MS, MAX_HOURS).unwrap().read_ms();
    assert_eq!(longest.end - longest.start, schemas::SIGNAL_RETENTION_MS);
    assert_eq!(SummaryWindow::new(5, 24).unwrap().read_ms(), 0..5);
}
