//! The commands in the documents are ones that the programs understand.

use std::process::Command;

use e2e::documents::{commands, documents};
use e2e::process::binary;

const PROGRAMS: [&str; 4] = ["allocator", "api", "ingest", "processor"];
/// Fewest commands in the documents, so that the test cannot miss them all.
const MIN_COMMANDS: usize = 40;

/// Returns the program and the arguments of a command of ours: without its folder or container, comment, and the
/// command that reads its output.
fn own_command(line: &str) -> Option<(&'static str, Vec<String>)> {
    let line = line.split(" # ").next().unwrap_or_default();
    let words = shell_words(line);
    let is_program = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        PROGRAMS.into_iter().find(|program| *program == name)
    };
    let start = match words.first()?.as_str() {
        // `docker compose exec SERVICE PROGRAM …`
        "docker" => words.iter().position(|word| word == "exec")? + 2,
        _ => 0,
    };
    let program = is_program(words.get(start)?)?;
    // An id that the reader has to fill in.
    let filled = |word: String| match word.as_str() {
        "ID" | "0193…" => "01930000-0000-7000-8000-000000000000".to_owned(),
        _ => word,
    };
    let arguments = words.into_iter().skip(start + 1).map(filled);
    Some((
        program,
        arguments.take_while(|word| !matches!(word.as_str(), "|" | ">" | "…")).collect(),
    ))
}

/// Splits a line as a shell does, with quotes, without substitutions.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Whether a program understands the arguments: with `--help` behind them it reads them and does nothing.
fn fault(program: &str, arguments: &[String]) -> Option<String> {
    let output =
        Command::new(binary(program).unwrap()).args(arguments).arg("--help").output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_command_in_the_documents_is_one_that_its_program_understands() {
    let mut checked = 0;
    let mut faults = Vec::new();
    for document in documents().unwrap() {
        for line in commands(&document).unwrap() {
            let Some((program, arguments)) = own_command(&line) else { continue };
            checked += 1;
            faults.extend(
                fault(program, &arguments).map(|fault| format!("{document}: {line}\n{fault}")),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked >= MIN_COMMANDS, "{checked}");
}

#[test]
fn a_command_that_a_program_does_not_know_is_noticed() {
    for line in
        ["processor jobs sumbit rebuild", "allocator codes --budget b --cuont 1", "api --port 1"]
    {
        let (program, arguments) = own_command(line).unwrap();
        assert!(fault(program, &arguments).is_some(), "{line}");
    }
}
