//! The steps from one roster to the next.

use schemas::job::JobId;
use schemas::{
    Building, Generation, GenerationRecord, LogNumber, LogRef, PartitionCount, Roster, Seal,
};

/// Why a step cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One is being built already.
    #[error("generation {0} is being built already: wait for it, or cancel it")]
    Building(Generation),
    /// It is not being built.
    #[error("generation {0} is not being built: it was given up, or it answers already")]
    NotBuilding(Generation),
    /// It is only tried.
    #[error("generation {0} is a dry run, which never answers")]
    DryRun(Generation),
    /// Another one answered before, or none.
    #[error("generation {0} is not the one before: it was retired, or it answers already")]
    NotBefore(Generation),
    /// The rows of the one before would be folded by nobody.
    #[error("generation {0} is there to go back to: retire it first")]
    PreviousIsKept(Generation),
    /// There would be nothing to gain.
    #[error("the log has {0} partitions already")]
    SamePartitions(u32),
    /// It derives from another log than the one that answers.
    #[error(
        "generation {0} is in a log of its own, into which submissions are to be moved: `processor repartition --cancel` \
         gives it up"
    )]
    Moved(Generation),
    /// The log that answers may still take submissions.
    #[error("the log that answers is not sealed for generation {0}")]
    NotSealed(Generation),
    /// The log that answers may take no submissions.
    #[error("the log that answers is sealed for generation {0}")]
    Sealed(Generation),
}

/// Begins a generation that derives from the same topic as the one that answers.
///
/// # Errors
/// When one is being built already, or the one before is still kept: at most two are folded at once.
pub fn begin(roster: &Roster, dry_run: bool, now_ms: u64) -> Result<Roster, Refused> {
    begin_in(roster, roster.current.log.clone(), dry_run, now_ms)
}

/// Begins a generation in a log of its own, with so many partitions, which is to take the place of the one that answers.
/// Its topic is called after `first_topic`, and after its number.
///
/// # Errors
/// As [`begin`]; and when the log has as many partitions already.
pub fn begin_moved(
    roster: &Roster,
    first_topic: &str,
    partitions: PartitionCount,
    now_ms: u64,
) -> Result<Roster, Refused> {
    if roster.current.log.partitions == partitions {
        return Err(Refused::SamePartitions(partitions.get()));
    }
    let number = LogNumber::begun_by(roster.next);
    let log = LogRef { number, topic: format!("{first_topic}-{number}"), partitions };
    begin_in(roster, log, false, now_ms)
}

fn begin_in(
    roster: &Roster,
    log: LogRef,
    dry_run: bool,
    begun_at_ms: u64,
) -> Result<Roster, Refused> {
    if let Some(building) = &roster.building {
        return Err(Refused::Building(building.record.generation));
    }
    if let Some(previous) = &roster.previous {
        return Err(Refused::PreviousIsKept(previous.generation));
    }
    let record = GenerationRecord { generation: roster.next, log };
    let mut next = follow(roster);
    next.next = Generation(roster.next.0 + 1);
    next.building = Some(Building { record, dry_run, begun_at_ms, job: None, seal: Seal::Open });
    Ok(next)
}

/// As [`begin`], for a background job.
///
/// # Errors
/// As [`begin`].
pub fn begin_for(
    job: JobId,
    roster: &Roster,
    dry_run: bool,
    now_ms: u64,
) -> Result<Roster, Refused> {
    let mut next = begin(roster, dry_run, now_ms)?;
    next.building = next.building.map(|building| Building { job: Some(job), ..building });
    Ok(next)
}

/// Lets the one that was built answer: this one, and no other. The one that answered is kept.
///
/// # Errors
/// When it is not built, or only tried.
pub fn flip(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    let building = building(roster, generation)?.clone();
    if building.dry_run {
        return Err(Refused::DryRun(building.record.generation));
    }
    if building.record.log != roster.current.log {
        return Err(Refused::Moved(generation));
    }
    let mut next = follow(roster);
    next.term += 1;
    next.previous = Some(std::mem::replace(&mut next.current, building.record));
    next.building = None;
    Ok(next)
}

/// Gives up the one that is being built: this one, and no other.
///
/// # Errors
/// When it is not.
pub fn cancel(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    let record = building(roster, generation)?.record.clone();
    if record.log != roster.current.log {
        return Err(Refused::Moved(generation));
    }
    let mut next = follow(roster);
    next.building = None;
    next.retired.push(record);
    Ok(next)
}

/// Says that the log that answers is about to take no more submissions, for the one that is built in another log.
///
/// # Errors
/// When it is not built, or the log is sealed for it already.
pub fn seal(roster: &Roster, generation: Generation, now_ms: u64) -> Result<Roster, Refused> {
    if building(roster, generation)?.seal != Seal::Open {
        return Err(Refused::Sealed(generation));
    }
    sealed_as(roster, Seal::Sealed { since_ms: now_ms })
}

/// Says that the log that answers is about to take submissions again, and the one that is built never will.
///
/// # Errors
/// When it is not built, or the log is not sealed for it.
pub fn unseal(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    match building(roster, generation)?.seal.since_ms() {
        Some(since_ms) => sealed_as(roster, Seal::Opening { since_ms }),
        None => Err(Refused::NotSealed(generation)),
    }
}

fn sealed_as(roster: &Roster, seal: Seal) -> Result<Roster, Refused> {
    let mut next = follow(roster);
    next.building = next.building.map(|building| Building { seal, ..building });
    Ok(next)
}

/// Lets the one answer that was built in another log, of which the one that answers is a part by now. That one is given up:
/// it has nothing of what is to come.
///
/// # Errors
/// When it is not built, or the log that answers may still take submissions.
pub fn flip_moved(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    let building = building(roster, generation)?.clone();
    if !matches!(building.seal, Seal::Sealed { .. }) {
        return Err(Refused::NotSealed(generation));
    }
    let mut next = follow(roster);
    next.term += 1;
    next.retired.push(std::mem::replace(&mut next.current, building.record));
    next.building = None;
    Ok(next)
}

/// Gives up the one that is built in another log.
///
/// # Errors
/// When it is not built, or the log that answers may be sealed for it and nobody has said that it is opened again.
pub fn cancel_moved(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    let building = building(roster, generation)?;
    if matches!(building.seal, Seal::Sealed { .. }) {
        return Err(Refused::Sealed(generation));
    }
    let record = building.record.clone();
    let mut next = follow(roster);
    next.building = None;
    next.retired.push(record);
    Ok(next)
}

fn building(roster: &Roster, generation: Generation) -> Result<&Building, Refused> {
    let building = roster.building.as_ref();
    building.filter(|it| it.record.generation == generation).ok_or(Refused::NotBuilding(generation))
}

/// Lets the one answer again that answered before, which is named. The other one is kept.
///
/// # Errors
/// When it is not the one before.
pub fn roll_back(roster: &Roster, to: Generation) -> Result<Roster, Refused> {
    let previous = previous(roster, to)?.clone();
    let mut next = follow(roster);
    next.term += 1;
    next.previous = Some(std::mem::replace(&mut next.current, previous));
    Ok(next)
}

/// Gives up the one that answered before, which is named: there is no way back then.
///
/// # Errors
/// When it is not the one before.
pub fn retire(roster: &Roster, generation: Generation) -> Result<Roster, Refused> {
    let previous = previous(roster, generation)?.clone();
    let mut next = follow(roster);
    next.previous = None;
    next.retired.push(previous);
    Ok(next)
}

fn previous(roster: &Roster, generation: Generation) -> Result<&GenerationRecord, Refused> {
    let previous = roster.previous.as_ref();
    previous.filter(|it| it.generation == generation).ok_or(Refused::NotBefore(generation))
}

/// Forgets one whose rows are deleted.
pub fn deleted(roster: &Roster, generation: Generation) -> Roster {
    let mut next = follow(roster);
    next.retired.retain(|record| record.generation != generation);
    next
}

fn follow(roster: &Roster) -> Roster {
    Roster { revision: roster.revision + 1, ..roster.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin(bool),
        Flip,
        Cancel,
        RollBack,
        Retire,
        Delete,
        BeginMoved(u64),
        Seal,
        Unseal,
        FlipMoved,
        CancelMoved,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(Step::Begin),
            Just(Step::Flip),
            Just(Step::Cancel),
            Just(Step::RollBack),
            Just(Step::Retire),
            Just(Step::Delete),
            (1..4_u64).prop_map(Step::BeginMoved),
            Just(Step::Seal),
            Just(Step::Unseal),
            Just(Step::FlipMoved),
            Just(Step::CancelMoved),
        ]
    }

    fn take(roster: &Roster, step: Step) -> Result<Roster, Refused> {
        match step {
            Step::Begin(dry_run) => begin(roster, dry_run, 0),
            Step::Flip => flip(roster, built(roster)),
            Step::Cancel => cancel(roster, built(roster)),
            Step::RollBack => roll_back(roster, before(roster)),
            Step::Retire => retire(roster, before(roster)),
            Step::Delete => {
                let oldest = roster.retired.first().map_or(Generation(0), |it| it.generation);
                Ok(deleted(roster, oldest))
            }
            Step::BeginMoved(partitions) => {
                begin_moved(roster, "submissions", PartitionCount::new(partitions).unwrap(), 0)
            }
            Step::Seal => seal(roster, built(roster), 7),
            Step::Unseal => unseal(roster, built(roster)),
            Step::FlipMoved => flip_moved(roster, built(roster)),
            Step::CancelMoved => cancel_moved(roster, built(roster)),
        }
    }

    fn built(roster: &Roster) -> Generation {
        roster.building.as_ref().map_or(Generation(0), |building| building.record.generation)
    }

    fn before(roster: &Roster) -> Generation {
        roster.previous.as_ref().map_or(Generation(0), |it| it.generation)
    }

    fn first() -> Roster {
        Roster::first(LogRef::first("submissions", PartitionCount::new(12).unwrap()))
    }

    proptest! {
        #[test]
        fn whatever_is_done_no_generation_has_two_parts_and_no_number_or_term_comes_again(
            steps in prop::collection::vec(any_step(), 1..60),
        ) {
            let mut roster = first();
            let mut answered = BTreeSet::from([roster.term()]);
            let mut begun = BTreeSet::from([roster.current.generation]);
            for step in steps {
                let Ok(next) = take(&roster, step) else { continue };
                prop_assert_eq!(next.revision, roster.revision + 1);
                let parts: Vec<_> = std::iter::once(&next.current)
                    .chain(next.beside())
                    .chain(&next.retired)
                    .map(|record| record.generation)
                    .collect();
                prop_assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), parts.len());
                prop_assert!(next.beside().count() <= 1);
                if let (None, Some(new)) = (&roster.building, &next.building) {
                    prop_assert!(begun.insert(new.record.generation), "a number came again");
                }
                if next.term() != roster.term() {
                    prop_assert!(next.term() > roster.term());
                    prop_assert!(answered.insert(next.term()));
                    prop_assert!(next.term().log >= roster.term().log, "an earlier log answers again");
                }
                if next.current.log != roster.current.log {
                    let sealed = roster.building.as_ref().map(|building| building.seal);
                    prop_assert_eq!(sealed, Some(Seal::Sealed { since_ms: 7 }));
                    prop_assert_eq!(&next.previous, &None);
                }
                roster = next;
            }
        }
    }

    #[test]
    fn a_rebuild_flips_is_rolled_back_and_flips_again_by_rolling_back() {
        let built = flip(&begin(&first(), false, 5).unwrap(), Generation(2)).unwrap();
        assert_eq!((built.term, built.current.generation), (2, Generation(2)));
        assert_eq!(built.previous.as_ref().map(|it| it.generation), Some(Generation(1)));
        let back = roll_back(&built, Generation(1)).unwrap();
        assert_eq!((back.term, back.current.generation), (3, Generation(1)));
        // Who has not seen that wants the same again, and not the way forth.
        assert_eq!(roll_back(&back, Generation(1)), Err(Refused::NotBefore(Generation(1))));
        assert_eq!(retire(&back, Generation(1)), Err(Refused::NotBefore(Generation(1))));
        let again = roll_back(&back, Generation(2)).unwrap();
        assert_eq!((again.term, again.current.generation), (4, Generation(2)));
        let alone = retire(&again, Generation(1)).unwrap();
        assert_eq!(roll_back(&alone, Generation(1)), Err(Refused::NotBefore(Generation(1))));
        assert_eq!(alone.retired.len(), 1);
        assert!(deleted(&alone, Generation(1)).retired.is_empty());
    }

    #[test]
    fn a_dry_run_never_answers_and_two_are_not_built_at_once() {
        let trying = begin(&first(), true, 5).unwrap();
        assert_eq!(flip(&trying, Generation(2)), Err(Refused::DryRun(Generation(2))));
        assert_eq!(begin(&trying, false, 6), Err(Refused::Building(Generation(2))));
        let given_up = cancel(&trying, Generation(2)).unwrap();
        assert_eq!(cancel(&given_up, Generation(2)), Err(Refused::NotBuilding(Generation(2))));
        let next = begin(&given_up, false, 7).unwrap();
        assert_eq!(flip(&next, Generation(2)), Err(Refused::NotBuilding(Generation(2))));
        assert_eq!(next.building.unwrap().record.generation, Generation(3));
    }

    #[test]
    fn one_that_is_kept_to_go_back_to_stands_in_the_way_of_the_next_rebuild() {
        let built = flip(&begin(&first(), false, 5).unwrap(), Generation(2)).unwrap();
        assert_eq!(begin(&built, false, 6), Err(Refused::PreviousIsKept(Generation(1))));
    }

    #[test]
    fn a_log_takes_the_place_of_another_only_once_that_is_sealed_and_there_is_no_way_back() {
        let five = PartitionCount::new(5).unwrap();
        let moving = begin_moved(&first(), "submissions", five, 5).unwrap();
        let built = &moving.building.as_ref().unwrap().record;
        assert_eq!((built.log.topic.as_str(), built.log.number), ("submissions-2", LogNumber(2)));
        let two = Generation(2);
        assert_eq!(flip(&moving, two), Err(Refused::Moved(two)));
        assert_eq!(cancel(&moving, two), Err(Refused::Moved(two)));
        assert_eq!(flip_moved(&moving, two), Err(Refused::NotSealed(two)));
        let sealed = seal(&moving, two, 6).unwrap();
        assert_eq!(cancel_moved(&sealed, two), Err(Refused::Sealed(two)));
        let moved = flip_moved(&sealed, two).unwrap();
        assert_eq!((moved.current.log.partitions, moved.retired.len()), (five, 1));
        assert_eq!(roll_back(&moved, Generation(1)), Err(Refused::NotBefore(Generation(1))));
        assert_eq!(begin_moved(&moved, "submissions", five, 7), Err(Refused::SamePartitions(5)));
    }

    #[test]
    fn one_that_is_given_up_after_the_log_was_sealed_never_answers_whoever_is_late() {
        let moving = begin_moved(&first(), "submissions", PartitionCount::new(5).unwrap(), 5);
        let two = Generation(2);
        let opening = unseal(&seal(&moving.unwrap(), two, 6).unwrap(), two).unwrap();
        assert_eq!(flip_moved(&opening, two), Err(Refused::NotSealed(two)));
        assert_eq!(seal(&opening, two, 8), Err(Refused::Sealed(two)));
        let given_up = cancel_moved(&opening, two).unwrap();
        assert_eq!(flip_moved(&given_up, two), Err(Refused::NotBuilding(two)));
    }
}
