//! The planted bugs of `mutants/` still apply to the sources.

use std::process::Command;

use e2e::process::workspace;

#[test]
fn every_mutant_still_applies_to_the_sources() {
    let mutants = workspace().join("mutants");
    let mut count = 0;
    for entry in std::fs::read_dir(mutants).unwrap() {
        let patch = entry.unwrap().path();
        if patch.extension().is_some_and(|extension| extension == "patch") {
            let mut git = Command::new("git");
            git.args(["apply", "--check"]).arg(&patch).current_dir(workspace());
            assert!(git.status().unwrap().success(), "{}", patch.display());
            count += 1;
        }
    }
    assert!(count >= 12, "{count} mutants");
}
