//! `docs/configuration.md` contains the table that `allocator config` prints.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use api::ApiConfig;
use runtime::config::defaults;
use runtime::http::HttpConfig;

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

#[test]
fn by_default_open_streams_and_requests_that_wait_do_not_take_every_connection() {
    let (http, api) = (HttpConfig::default(), defaults(ApiConfig::read));
    // Only submissions may take all requests.
    assert!(api.max_streams + http.max_requests <= http.max_connections);
}

#[test]
fn every_example_of_a_configuration_file_in_the_documentation_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let mut examples = 0;
    for document in ["configuration.md", "operations/limits.md"] {
        let path = format!("{}/../docs/{document}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        for example in text.split("```toml\n").skip(1) {
            let (example, _) = example.split_once("```").unwrap();
            let file = directory.path().join("example.toml");
            std::fs::write(&file, example).unwrap();
            // With a setting that does not exist, the command ends with all faults instead of starting.
            let refused = Command::new(env!("CARGO_BIN_EXE_allocator"))
                .args(["run", "--set", "no-such-section.key=1", "--config"])
                .arg(&file)
                .output()
                .unwrap();
            let faults = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{faults}");
            let faults: Vec<&str> = faults.lines().skip(1).collect();
            assert_eq!(faults, ["  no-such-section.key (--set): no such setting"], "{document}");
            examples += 1;
        }
    }
    assert_eq!(examples, 2);
}
