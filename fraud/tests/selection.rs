//! Selecting people by their signals, from a real embedded log of signals.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use fraud::selection::{SignalFilter, people_of};
use proptest::prelude::*;
use runtime::clock::now_ms;
use schemas::{
    BallotDigest, BudgetId, IdentityLevel, NetworkDigest, PersonKey, Signal, SignalAction,
    SignalOrigin,
};
use storage::signals::{SignalWriter, SqliteSignalReader, SqliteSignalWriter};
use tempfile::TempDir;

/// Person, budget, age, ballot and network of a signal.
type Drawn = (u8, bool, u64, Option<u64>, Option<u64>);

fn signal(now_ms: u64, (person, of_taxes, age_ms, ballot, network): Drawn) -> Signal {
    Signal {
        budget: BudgetId::parse(if of_taxes { "taxes" } else { "town" }).unwrap(),
        person: PersonKey::from_bytes([person; 16]),
        accepted_at_ms: now_ms - age_ms,
        action: ballot
            .map_or(SignalAction::Withdraw, |ballot| SignalAction::Allocate(BallotDigest(ballot))),
        origin: SignalOrigin {
            network: network.map(NetworkDigest),
            agent: None,
            identity: IdentityLevel::Code,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_selection_is_exactly_the_people_of_the_signals_in_the_span(
        drawn in prop::collection::vec(
            (any::<u8>(), any::<bool>(), 0u64..50, prop::option::of(0u64..3), prop::option::of(0u64..3)),
            0..200,
        ),
        from in 0u64..60,
        length in 0u64..60,
    ) {
        let now = now_ms();
        let signals: Vec<Signal> = drawn.into_iter().map(|drawn| signal(now, drawn)).collect();
        let (from_ms, until_ms) = (now - from, now - from + length);
        let network = NetworkDigest(1);
        let ballot = BallotDigest(1);
        let taxes = BudgetId::parse("taxes").unwrap();
        let expected = |is_selected: &dyn Fn(&Signal) -> bool| -> Vec<PersonKey> {
            let selected = signals.iter().filter(|signal| {
                signal.budget == taxes
                    && signal.accepted_at_ms >= from_ms
                    && signal.accepted_at_ms < until_ms
                    && is_selected(signal)
            });
            selected.map(|signal| signal.person).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("signals.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let people = |filter: SignalFilter| {
            let reader = SqliteSignalReader::new(&path);
            runtime.block_on(people_of(&reader, &taxes, &filter)).unwrap()
        };
        runtime.block_on(SqliteSignalWriter::new(&path).append(&signals)).unwrap();
        prop_assert_eq!(
            people(SignalFilter::Network { network, from_ms, until_ms }),
            expected(&|signal| signal.origin.network == Some(network))
        );
        prop_assert_eq!(
            people(SignalFilter::Ballot { ballot, from_ms, until_ms }),
            expected(&|signal| signal.action == SignalAction::Allocate(ballot))
        );
    }
}
