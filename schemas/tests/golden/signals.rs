//! Signals, and the digests in them.

use proptest::prelude::*;
use schemas::*;

fn signal(action: SignalAction, network: Option<NetworkDigest>) -> Signal {
    let agent = network.map(|_| AgentDigest(2));
    Signal {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes([7; 16]),
        accepted_at_ms: 1_795_212_000_123,
        action,
        origin: SignalOrigin { network, agent, identity: IdentityLevel::Token },
    }
}

#[test]
fn a_signal_keeps_its_bytes() {
    let head = "080112057461786573\
                1a1007070707070707070707070707070707\
                20fbf6e4d79f34";
    let ballot = SignalAction::Allocate(BallotDigest(3));
    let full = signal(ballot, Some(NetworkDigest(1)));
    let withdrawal = signal(SignalAction::Withdraw, None);
    let expected = [
        (&full, "2801310100000000000000390200000000000000410300000000000000"),
        (&withdrawal, "2802"),
    ];
    for (signal, tail) in expected {
        let bytes = signal.encode();
        assert_eq!(hex::encode(&bytes), format!("{head}{tail}4805"));
        assert!(bytes.len() <= SIGNAL_MAX_BYTES);
        assert_eq!(Signal::decode(&bytes).as_ref(), Ok(signal));
    }
    let decode = |text: &str| Signal::decode(&hex::decode(text).unwrap());
    let newer_level = decode(&format!("{head}28024863")).unwrap();
    assert_eq!(newer_level.origin.identity, IdentityLevel::Unrecognized);
    for (tail, fault) in [
        // A withdrawal with a ballot, an allocation without one, an unknown action, none.
        ("2802410300000000000000", SignalFault::Action),
        ("2801", SignalFault::Action),
        ("2807", SignalFault::Action),
        ("", SignalFault::Action),
        ("28020802", SignalFault::Version(2)),
        ("28021a0107", SignalFault::Person(1)),
        ("2802120121", SignalFault::Budget),
        ("ff", SignalFault::Garbage),
    ] {
        assert_eq!(decode(&format!("{head}{tail}")), Err(fault), "{tail}");
    }
    assert_eq!(Signal::decode(&[0; SIGNAL_MAX_BYTES + 1]), Err(SignalFault::TooLong(257)));
}

#[test]
fn digests_of_signals_keep_their_values_and_belong_to_a_day_and_a_budget() {
    let person_secret = PersonSecret::new(b"a secret of at least thirty-two bytes").unwrap();
    let signals = SignalHasher::new(&person_secret);
    let (taxes, town) = (BudgetId::parse("taxes").unwrap(), BudgetId::parse("town").unwrap());
    let day_ms = 86_400_000;
    let midnight = 20_787 * day_ms;
    let day = signals.day_key(midnight);
    // All processes of a deployment, also of different releases, must agree.
    assert_eq!(day.network(&taxes, b"prefix").to_string(), "f411c89896d3c8fc");
    assert_eq!(day.agent(&taxes, b"prefix").to_string(), "8e709409c919461f");
    let allocation = Allocation::new(&[4000, 3550, 2450]).unwrap();
    let ballot = signals.ballot(&taxes, &allocation);
    assert_eq!(ballot.to_string(), "bb67412646101c01");
    assert_eq!(BallotDigest::parse(&ballot.to_string()), Some(ballot));

    assert!(day.covers(midnight) && day.covers(midnight + day_ms - 1));
    assert!(!day.covers(midnight - 1) && !day.covers(midnight + day_ms));
    assert_eq!(
        signals.day_key(midnight + day_ms - 1).network(&taxes, b"prefix"),
        day.network(&taxes, b"prefix")
    );
    for other in [midnight - 1, midnight + day_ms] {
        let other = signals.day_key(other);
        assert_ne!(other.network(&taxes, b"prefix"), day.network(&taxes, b"prefix"));
        assert_ne!(other.agent(&taxes, b"prefix"), day.agent(&taxes, b"prefix"));
    }
    assert_ne!(day.network(&town, b"prefix"), day.network(&taxes, b"prefix"));
    assert_ne!(signals.ballot(&town, &allocation), ballot);
    for not_a_digest in ["", "12", "0123456789abcdeg", "+123456789abcdef", "0123456789abcdef0"] {
        assert_eq!(NetworkDigest::parse(not_a_digest), None, "{not_a_digest}");
    }
    let shown = format!("{signals:?} {day:?}");
    assert_eq!(shown, "SignalHasher(hidden) SignalDayKey(hidden)");
}

proptest! {
    #[test]
    fn hostile_signals_never_panic_and_what_decodes_encodes_the_same(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        flipped in 0usize..100, bit in 0u8..8,
    ) {
        let _ = Signal::decode(&bytes);
        let mut near = signal(SignalAction::Allocate(BallotDigest(3)), Some(NetworkDigest(1))).encode();
        let index = flipped % near.len();
        near[index] ^= 1 << bit;
        if let Ok(decoded) = Signal::decode(&near) {
            prop_assert_eq!(Signal::decode(&decoded.encode()), Ok(decoded));
        }
    }
}
