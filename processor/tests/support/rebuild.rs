//! Drives a rebuild without a job. Not every test uses all of it.

use generations::rebuild::{RebuildError, target_positions, wait_until_compared};
use generations::registry::{
    RegistryUpdateError, begin, cancel, delete_retired, switch_active, update_registry,
};
use schemas::{Building, Generation};
use storage::log::LogReader;
use storage::store::Store;

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildOutcome {
    /// The generation that was built.
    pub generation: Generation,
    /// The generation it was compared with.
    pub before: Generation,
    /// Minimum number of records that it was compared at.
    pub records: u64,
    /// Differences, one per line.
    pub differences: Vec<String>,
}

/// Begins a rebuild, or joins a running one, and completes it.
///
/// Switches to the new generation; a dry run is cancelled instead.
pub async fn rebuild(
    store: &dyn Store,
    log: &dyn LogReader,
    dry_run: bool,
) -> Result<RebuildOutcome, RebuildError> {
    let targets = target_positions(log).await?;
    let (building, before) = begin_or_join(store, dry_run).await?;
    let generation = building.record.generation;
    let (records, differences) =
        wait_until_compared(store, &building.record, before, &targets, |_| {}).await?;
    if dry_run {
        update_registry(store, |registry| cancel(registry, generation)).await?;
        delete_retired(store).await?;
    } else {
        update_registry(store, |registry| switch_active(registry, generation)).await?;
    }
    Ok(RebuildOutcome { generation, before, records, differences })
}

/// Returns the building generation, begun here if there is none, and the active generation.
async fn begin_or_join(
    store: &dyn Store,
    dry_run: bool,
) -> Result<(Building, Generation), RebuildError> {
    let current = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    let registry = match current.building {
        Some(_) => current,
        None => update_registry(store, |registry| begin(registry, dry_run, 0)).await?,
    };
    let active = registry.active.generation;
    match registry.building {
        Some(building)
            if building.dry_run == dry_run && building.record.log == registry.active.log =>
        {
            Ok((building, active))
        }
        Some(building) => Err(RebuildError::PurposeConflict(building.record.generation)),
        None => Err(RebuildError::NoLongerBuilding(registry.next)),
    }
}
