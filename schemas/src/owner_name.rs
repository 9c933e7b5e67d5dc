//! Names of partition owners: unique to a process, with the version of the fold that the process has.
//!
//! A claim stores the name of its owner. So the store says which version of the fold each partition is folded by, also
//! while processors of several releases run.

use uuid::Uuid;

use crate::FOLD_VERSION;

/// Begins the part of a name that says the version of the fold. No other part begins so.
const FOLD_VERSION_PREFIX: &str = "fold";
/// Version of owners whose names say none, of earlier releases.
const UNSTATED_FOLD_VERSION: u32 = 1;

/// Creates the owner name of a process of this release.
pub fn owner_name(process_id: u32, random: Uuid) -> String {
    format!("{process_id}-{random}-{FOLD_VERSION_PREFIX}{FOLD_VERSION}")
}

/// Returns the version of the fold that an owner has, by its name.
pub fn fold_version_of_owner(name: &str) -> u32 {
    let stated =
        name.split('-').find_map(|part| part.strip_prefix(FOLD_VERSION_PREFIX)?.parse().ok());
    stated.unwrap_or(UNSTATED_FOLD_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_the_version_of_the_fold_and_names_of_earlier_releases_say_none() {
        let random = Uuid::from_u128(u128::MAX);
        let name = owner_name(4711, random);
        assert!(name.starts_with("4711-ffffffff-"), "{name}");
        assert_eq!(fold_version_of_owner(&name), FOLD_VERSION);
        assert_eq!(fold_version_of_owner(&format!("{name}-shadow")), FOLD_VERSION);
        for earlier in
            [&format!("4711-{random}"), &format!("4711-{random}-shadow"), "", "fold", "fold-2"]
        {
            assert_eq!(fold_version_of_owner(earlier), 1, "{earlier}");
        }
    }
}
