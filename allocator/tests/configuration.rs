//! `docs/configuration.md` contains the table that `allocator config` prints.

#![allow(clippy::unwrap_used)]

use std::process::Command;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
const BEGIN: &str = "<!-- configuration -->";
const END: &str = "<!-- /configuration -->";

#[test]
fn the_documented_table_equals_the_output_of_the_config_command() {
    let printed = Command::new(env!("CARGO_BIN_EXE_allocator")).arg("config").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (_, after) = document.split_once(BEGIN).unwrap();
    let (documented, _) = after.split_once(END).unwrap();
    assert_eq!(
        documented.trim(),
        printed.trim(),
        "replace the table between {BEGIN} and {END} in docs/configuration.md with the output of \
         `cargo run -p allocator -- config`"
    );
}
