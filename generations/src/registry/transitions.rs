//! The state machine of the generation registry: pure functions from one registry to the next.
//!
//! A generation on the log of the active generation (a rebuild):
//!
//! ```text
//! begin ──> building ──switch_active──> active ──switch_active──> previous ──retire──> retired ──remove_retired──> gone
//!              │                           <──────roll_back──────>                        ^
//!              └──────────────────────────────cancel──────────────────────────────────────┘
//! ```
//!
//! A generation on a new log (a repartition). The active log is sealed before the switch, and
//! there is no rollback:
//!
//! ```text
//! begin_on_new_log ──> building ──seal──> sealed ──switch_to_new_log──> active; the formerly active one is retired
//!                         │                  └──unseal──> opening ──cancel_on_new_log──> retired
//!                         └───────────────────cancel_on_new_log─────────────────────────────^
//! ```

use schemas::job::JobId;
use schemas::{
    Building, Generation, GenerationRecord, GenerationRegistry, LogNumber, LogRef, PartitionCount,
    Seal,
};

/// Why the registry does not allow a transition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionRefused {
    /// Another generation is being built.
    #[error("generation {0} is already being built: wait for it, or cancel it")]
    AlreadyBuilding(Generation),
    /// The generation is not being built.
    #[error("generation {0} is not being built: it was cancelled, or is already active")]
    NotBuilding(Generation),
    /// The generation is a dry run.
    #[error("generation {0} is a dry run, which never becomes active")]
    DryRun(Generation),
    /// The generation is not the previous one.
    #[error("generation {0} is not the previous one: it was retired, or is already active")]
    NotPrevious(Generation),
    /// Beginning another generation would leave the previous one without an owner.
    #[error("generation {0} is kept for rollback: retire it first")]
    PreviousKept(Generation),
    /// The active log already has the requested partition count.
    #[error("the log already has {0} partitions")]
    SamePartitions(u32),
    /// The generation derives from a new log.
    #[error(
        "generation {0} is built on a new log by a repartition: `processor repartition --cancel` cancels it"
    )]
    OnNewLog(Generation),
    /// The active log may still take submissions.
    #[error("the active log is not sealed for generation {0}")]
    NotSealed(Generation),
    /// The active log is sealed, or is about to be.
    #[error("the active log is sealed for generation {0}")]
    Sealed(Generation),
}

/// Begins a generation on the active log.
///
/// # Errors
/// When a generation is being built or the previous one is still kept: at most two generations
/// are folded at once.
pub fn begin(
    registry: &GenerationRegistry,
    dry_run: bool,
    now_ms: u64,
) -> Result<GenerationRegistry, TransitionRefused> {
    begin_on(registry, registry.active.log.clone(), dry_run, now_ms)
}

/// Begins a generation on behalf of a job; otherwise as [`begin`].
///
/// # Errors
/// As [`begin`].
pub fn begin_for_job(
    job: JobId,
    registry: &GenerationRegistry,
    dry_run: bool,
    now_ms: u64,
) -> Result<GenerationRegistry, TransitionRefused> {
    let mut next = begin(registry, dry_run, now_ms)?;
    next.building = next.building.map(|building| Building { job: Some(job), ..building });
    Ok(next)
}

/// Begins a generation on a new log with another partition count.
///
/// The new topic is named after `first_topic` and the number of the log.
///
/// # Errors
/// As [`begin`], and when the active log already has that many partitions.
pub fn begin_on_new_log(
    registry: &GenerationRegistry,
    first_topic: &str,
    partitions: PartitionCount,
    now_ms: u64,
) -> Result<GenerationRegistry, TransitionRefused> {
    if registry.active.log.partitions == partitions {
        return Err(TransitionRefused::SamePartitions(partitions.get()));
    }
    let number = LogNumber::for_generation(registry.next);
    let log = LogRef { number, topic: format!("{first_topic}-{number}"), partitions };
    begin_on(registry, log, false, now_ms)
}

fn begin_on(
    registry: &GenerationRegistry,
    log: LogRef,
    dry_run: bool,
    begun_at_ms: u64,
) -> Result<GenerationRegistry, TransitionRefused> {
    if let Some(building) = &registry.building {
        return Err(TransitionRefused::AlreadyBuilding(building.record.generation));
    }
    if let Some(previous) = &registry.previous {
        return Err(TransitionRefused::PreviousKept(previous.generation));
    }
    let mut record = GenerationRecord::new(registry.next, log);
    // What the active log holds, a copy of it holds too.
    record.require_fold_version(registry.active.fold_version);
    let mut next = successor(registry);
    next.next = Generation(registry.next.0 + 1);
    next.building = Some(Building { record, dry_run, begun_at_ms, job: None, seal: Seal::Open });
    Ok(next)
}

/// Makes the given building generation the active one and keeps the formerly active one.
///
/// # Errors
/// When that generation is not being built, is a dry run, or is on a new log.
pub fn switch_active(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let building = building(registry, generation)?.clone();
    if building.dry_run {
        return Err(TransitionRefused::DryRun(building.record.generation));
    }
    if building.record.log != registry.active.log {
        return Err(TransitionRefused::OnNewLog(generation));
    }
    let mut next = successor(registry);
    next.term += 1;
    next.previous = Some(std::mem::replace(&mut next.active, building.record));
    next.building = None;
    Ok(next)
}

/// Cancels the given building generation.
///
/// # Errors
/// When that generation is not being built, or is on a new log.
pub fn cancel(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let record = building(registry, generation)?.record.clone();
    if record.log != registry.active.log {
        return Err(TransitionRefused::OnNewLog(generation));
    }
    Ok(retire_building(registry, record))
}

/// Records that the active log is about to be sealed for the building generation.
///
/// # Errors
/// When that generation is not being built, or the log is already sealed for it.
pub fn seal(
    registry: &GenerationRegistry,
    generation: Generation,
    now_ms: u64,
) -> Result<GenerationRegistry, TransitionRefused> {
    if building(registry, generation)?.seal != Seal::Open {
        return Err(TransitionRefused::Sealed(generation));
    }
    Ok(with_seal(registry, Seal::Sealed { since_ms: now_ms }))
}

/// Records that the active log is about to be unsealed; the building generation can no longer become active.
///
/// # Errors
/// When that generation is not being built, or the log is not sealed for it.
pub fn unseal(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    match building(registry, generation)?.seal.since_ms() {
        Some(since_ms) => Ok(with_seal(registry, Seal::Reopening { since_ms })),
        None => Err(TransitionRefused::NotSealed(generation)),
    }
}

fn with_seal(registry: &GenerationRegistry, seal: Seal) -> GenerationRegistry {
    let mut next = successor(registry);
    next.building = next.building.map(|building| Building { seal, ..building });
    next
}

/// Switches to the generation on the new log, and retires the formerly active one.
///
/// The formerly active one is not kept for rollback: it receives no later submissions.
///
/// # Errors
/// When that generation is not being built, or the active log may still take submissions.
pub fn switch_to_new_log(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let building = building(registry, generation)?.clone();
    if !matches!(building.seal, Seal::Sealed { .. }) {
        return Err(TransitionRefused::NotSealed(generation));
    }
    let mut next = successor(registry);
    next.term += 1;
    next.retired.push(std::mem::replace(&mut next.active, building.record));
    next.building = None;
    Ok(next)
}

/// Cancels the generation that is being built on a new log.
///
/// # Errors
/// When that generation is not being built, or the active log may be sealed for it and
/// [`unseal`] was not recorded.
pub fn cancel_on_new_log(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let building = building(registry, generation)?;
    if matches!(building.seal, Seal::Sealed { .. }) {
        return Err(TransitionRefused::Sealed(generation));
    }
    Ok(retire_building(registry, building.record.clone()))
}

fn retire_building(registry: &GenerationRegistry, record: GenerationRecord) -> GenerationRegistry {
    let mut next = successor(registry);
    next.building = None;
    next.retired.push(record);
    next
}

fn building(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<&Building, TransitionRefused> {
    let building = registry.building.as_ref();
    building
        .filter(|building| building.record.generation == generation)
        .ok_or(TransitionRefused::NotBuilding(generation))
}

/// Makes the given previous generation active again and keeps the formerly active one.
///
/// # Errors
/// When that generation is not the previous one.
pub fn roll_back(
    registry: &GenerationRegistry,
    to: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let previous = previous(registry, to)?.clone();
    let mut next = successor(registry);
    next.term += 1;
    next.previous = Some(std::mem::replace(&mut next.active, previous));
    Ok(next)
}

/// Retires the given previous generation, after which no rollback is possible.
///
/// # Errors
/// When that generation is not the previous one.
pub fn retire(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<GenerationRegistry, TransitionRefused> {
    let previous = previous(registry, generation)?.clone();
    let mut next = successor(registry);
    next.previous = None;
    next.retired.push(previous);
    Ok(next)
}

fn previous(
    registry: &GenerationRegistry,
    generation: Generation,
) -> Result<&GenerationRecord, TransitionRefused> {
    let previous = registry.previous.as_ref();
    previous
        .filter(|record| record.generation == generation)
        .ok_or(TransitionRefused::NotPrevious(generation))
}

/// Removes a retired generation whose data are deleted.
pub fn remove_retired(registry: &GenerationRegistry, generation: Generation) -> GenerationRegistry {
    let mut next = successor(registry);
    next.retired.retain(|record| record.generation != generation);
    next
}

/// Raises the version of the fold that the active generation and the shadows need; a later version stays.
pub fn raise_fold_version(registry: &GenerationRegistry, version: u32) -> GenerationRegistry {
    let mut next = successor(registry);
    let building = next.building.iter_mut().map(|building| &mut building.record);
    for record in std::iter::once(&mut next.active).chain(building).chain(&mut next.previous) {
        record.require_fold_version(version);
    }
    next
}

fn successor(registry: &GenerationRegistry) -> GenerationRegistry {
    GenerationRegistry { revision: registry.revision + 1, ..registry.clone() }
}
