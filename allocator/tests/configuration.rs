//! The README's configuration reference is what `allocator config` prints.

#![allow(clippy::unwrap_used)]

use std::process::Command;

const BEGIN: &str = "<!-- configuration -->";
const END: &str = "<!-- /configuration -->";

#[test]
fn the_readme_holds_the_reference_as_the_command_prints_it() {
    let printed = Command::new(env!("CARGO_BIN_EXE_allocator")).arg("config").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, after) = readme.split_once(BEGIN).unwrap();
    let (held, _) = after.split_once(END).unwrap();
    assert_eq!(
        held.trim(),
        printed.trim(),
        "put what `allocator config` prints between {BEGIN} and {END} in README.md"
    );
}
