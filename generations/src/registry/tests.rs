//! Properties of the registry's state machine.

use std::collections::BTreeSet;

use proptest::prelude::*;
use schemas::{Generation, GenerationRegistry, LogNumber, LogRef, PartitionCount, Seal};

use super::transitions::*;

#[derive(Debug, Clone, Copy)]
enum Transition {
    Begin(bool),
    SwitchActive,
    Cancel,
    RollBack,
    Retire,
    RemoveRetired,
    BeginOnNewLog(u64),
    Seal,
    Unseal,
    SwitchToNewLog,
    CancelOnNewLog,
}

fn any_transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        any::<bool>().prop_map(Transition::Begin),
        Just(Transition::SwitchActive),
        Just(Transition::Cancel),
        Just(Transition::RollBack),
        Just(Transition::Retire),
        Just(Transition::RemoveRetired),
        (1..4_u64).prop_map(Transition::BeginOnNewLog),
        Just(Transition::Seal),
        Just(Transition::Unseal),
        Just(Transition::SwitchToNewLog),
        Just(Transition::CancelOnNewLog),
    ]
}

fn apply(
    registry: &GenerationRegistry,
    transition: Transition,
) -> Result<GenerationRegistry, TransitionRefused> {
    match transition {
        Transition::Begin(dry_run) => begin(registry, dry_run, 0),
        Transition::SwitchActive => switch_active(registry, building_generation(registry)),
        Transition::Cancel => cancel(registry, building_generation(registry)),
        Transition::RollBack => roll_back(registry, previous_generation(registry)),
        Transition::Retire => retire(registry, previous_generation(registry)),
        Transition::RemoveRetired => {
            let oldest = registry.retired.first().map_or(Generation(0), |it| it.generation);
            Ok(remove_retired(registry, oldest))
        }
        Transition::BeginOnNewLog(partitions) => {
            begin_on_new_log(registry, "submissions", PartitionCount::new(partitions).unwrap(), 0)
        }
        Transition::Seal => seal(registry, building_generation(registry), 7),
        Transition::Unseal => unseal(registry, building_generation(registry)),
        Transition::SwitchToNewLog => switch_to_new_log(registry, building_generation(registry)),
        Transition::CancelOnNewLog => cancel_on_new_log(registry, building_generation(registry)),
    }
}

fn building_generation(registry: &GenerationRegistry) -> Generation {
    registry.building.as_ref().map_or(Generation(0), |building| building.record.generation)
}

fn previous_generation(registry: &GenerationRegistry) -> Generation {
    registry.previous.as_ref().map_or(Generation(0), |it| it.generation)
}

fn first() -> GenerationRegistry {
    GenerationRegistry::first(LogRef::first("submissions", PartitionCount::new(12).unwrap()))
}

proptest! {
    #[test]
    fn any_transition_sequence_keeps_roles_disjoint_and_never_reuses_a_number_or_term(
        transitions in prop::collection::vec(any_transition(), 1..60),
    ) {
        let mut registry = first();
        let mut terms = BTreeSet::from([registry.term()]);
        let mut begun = BTreeSet::from([registry.active.generation]);
        for transition in transitions {
            let Ok(next) = apply(&registry, transition) else { continue };
            prop_assert_eq!(next.revision, registry.revision + 1);
            let roles: Vec<_> = std::iter::once(&next.active)
                .chain(next.shadows())
                .chain(&next.retired)
                .map(|record| record.generation)
                .collect();
            prop_assert_eq!(roles.iter().collect::<BTreeSet<_>>().len(), roles.len());
            prop_assert!(next.shadows().count() <= 1);
            if let (None, Some(new)) = (&registry.building, &next.building) {
                prop_assert!(begun.insert(new.record.generation), "a generation number was reused");
            }
            if next.term() != registry.term() {
                prop_assert!(next.term() > registry.term());
                prop_assert!(terms.insert(next.term()));
                prop_assert!(next.term().log >= registry.term().log, "the active log went back to an earlier one");
            }
            if next.active.log != registry.active.log {
                let sealed = registry.building.as_ref().map(|building| building.seal);
                prop_assert_eq!(sealed, Some(Seal::Sealed { since_ms: 7 }));
                prop_assert_eq!(&next.previous, &None);
            }
            registry = next;
        }
    }
}

#[test]
fn rollback_can_be_repeated_in_both_directions_until_retire() {
    let built = switch_active(&begin(&first(), false, 5).unwrap(), Generation(2)).unwrap();
    assert_eq!((built.term, built.active.generation), (2, Generation(2)));
    assert_eq!(built.previous.as_ref().map(|it| it.generation), Some(Generation(1)));
    let back = roll_back(&built, Generation(1)).unwrap();
    assert_eq!((back.term, back.active.generation), (3, Generation(1)));
    // A repeated rollback to the same generation must not undo the first one.
    assert_eq!(roll_back(&back, Generation(1)), Err(TransitionRefused::NotPrevious(Generation(1))));
    assert_eq!(retire(&back, Generation(1)), Err(TransitionRefused::NotPrevious(Generation(1))));
    let again = roll_back(&back, Generation(2)).unwrap();
    assert_eq!((again.term, again.active.generation), (4, Generation(2)));
    let alone = retire(&again, Generation(1)).unwrap();
    assert_eq!(
        roll_back(&alone, Generation(1)),
        Err(TransitionRefused::NotPrevious(Generation(1)))
    );
    assert_eq!(alone.retired.len(), 1);
    assert!(remove_retired(&alone, Generation(1)).retired.is_empty());
}

#[test]
fn a_dry_run_never_becomes_active_and_only_one_generation_is_built_at_a_time() {
    let dry_run = begin(&first(), true, 5).unwrap();
    assert_eq!(
        switch_active(&dry_run, Generation(2)),
        Err(TransitionRefused::DryRun(Generation(2)))
    );
    assert_eq!(begin(&dry_run, false, 6), Err(TransitionRefused::AlreadyBuilding(Generation(2))));
    let cancelled = cancel(&dry_run, Generation(2)).unwrap();
    assert_eq!(
        cancel(&cancelled, Generation(2)),
        Err(TransitionRefused::NotBuilding(Generation(2)))
    );
    let next = begin(&cancelled, false, 7).unwrap();
    assert_eq!(
        switch_active(&next, Generation(2)),
        Err(TransitionRefused::NotBuilding(Generation(2)))
    );
    assert_eq!(next.building.unwrap().record.generation, Generation(3));
}

#[test]
fn a_kept_previous_generation_blocks_the_next_rebuild() {
    let built = switch_active(&begin(&first(), false, 5).unwrap(), Generation(2)).unwrap();
    assert_eq!(begin(&built, false, 6), Err(TransitionRefused::PreviousKept(Generation(1))));
}

#[test]
fn switching_to_a_new_log_requires_a_sealed_log_and_allows_no_rollback() {
    let five = PartitionCount::new(5).unwrap();
    let on_new_log = begin_on_new_log(&first(), "submissions", five, 5).unwrap();
    let built = &on_new_log.building.as_ref().unwrap().record;
    assert_eq!((built.log.topic.as_str(), built.log.number), ("submissions-2", LogNumber(2)));
    let two = Generation(2);
    assert_eq!(switch_active(&on_new_log, two), Err(TransitionRefused::OnNewLog(two)));
    assert_eq!(cancel(&on_new_log, two), Err(TransitionRefused::OnNewLog(two)));
    assert_eq!(switch_to_new_log(&on_new_log, two), Err(TransitionRefused::NotSealed(two)));
    let sealed = seal(&on_new_log, two, 6).unwrap();
    assert_eq!(cancel_on_new_log(&sealed, two), Err(TransitionRefused::Sealed(two)));
    let switched = switch_to_new_log(&sealed, two).unwrap();
    assert_eq!((switched.active.log.partitions, switched.retired.len()), (five, 1));
    assert_eq!(
        roll_back(&switched, Generation(1)),
        Err(TransitionRefused::NotPrevious(Generation(1)))
    );
    assert_eq!(
        begin_on_new_log(&switched, "submissions", five, 7),
        Err(TransitionRefused::SamePartitions(5))
    );
}

#[test]
fn a_generation_cancelled_after_the_seal_never_becomes_active() {
    let on_new_log = begin_on_new_log(&first(), "submissions", PartitionCount::new(5).unwrap(), 5);
    let two = Generation(2);
    let opening = unseal(&seal(&on_new_log.unwrap(), two, 6).unwrap(), two).unwrap();
    assert_eq!(switch_to_new_log(&opening, two), Err(TransitionRefused::NotSealed(two)));
    assert_eq!(seal(&opening, two, 8), Err(TransitionRefused::Sealed(two)));
    let cancelled = cancel_on_new_log(&opening, two).unwrap();
    assert_eq!(switch_to_new_log(&cancelled, two), Err(TransitionRefused::NotBuilding(two)));
}
