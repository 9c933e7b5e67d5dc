//! The laws of the layers, on the sources as they come: a file's text, an environment, flags.

use std::ffi::OsString;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const PORT: Key<u16> = Key::new("http.port", Some("80"), "port", "Where it listens.", parse::u16);
const NAME: Key<String> =
    Key::new("service.name", None, "", "What it is called.", parse::non_empty);
const BROKERS: Key<Vec<String>> =
    Key::new("kafka.brokers", Some("a:1"), "host:port", "Where Kafka is.", parse::list);
const PASSWORD: Key<u64> =
    Key::new("kafka.password", Some("0"), "", "A secret of digits.", leaky_number).secret();
const KEYS: &[KeyDoc] =
    &[PORT.describe(), NAME.describe(), BROKERS.describe(), PASSWORD.describe()];

/// A parser that breaks the rule of not repeating the text.
fn leaky_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

#[derive(Default)]
struct Sources {
    file: &'static str,
    variables: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Sources {
    fn load(&self) -> Settings {
        let mut faults = Vec::new();
        let settings = self.load_with(&mut faults);
        assert_eq!(faults, []);
        settings
    }

    fn load_with(&self, faults: &mut Vec<ConfigFault>) -> Settings {
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let file = Some((PathBuf::from("allocator.toml"), self.file.to_owned()));
        Settings::from_sources(file, variables, &self.flags, faults)
    }
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// All that is wrong with the settings, as printed.
fn complaint(settings: &Settings) -> String {
    let mut reader = settings.reader();
    reader.read(&PORT);
    reader.read(&NAME);
    reader.read(&BROKERS);
    reader.read(&PASSWORD);
    reader.finish(Some(())).map_or_else(|faults| faults.to_string(), |()| String::new())
}

proptest! {
    #[test]
    fn the_strongest_layer_that_says_something_wins(
        default in proptest::option::of(0_u16..), file in proptest::option::of(0_u16..),
        environment in proptest::option::of(0_u16..), flag in proptest::option::of(0_u16..),
    ) {
        let text = file.map_or(String::new(), |port| format!("[http]\nport = {port}\n"));
        let variables = environment
            .map(|port| (OsString::from("ALLOCATOR__HTTP__PORT"), OsString::from(port.to_string())));
        let flags: Vec<String> = flag.map(|port| format!("http.port={port}")).into_iter().collect();
        let mut faults = Vec::new();
        let settings = Settings::from_sources(Some((PathBuf::from("f"), text)), variables, &flags, &mut faults)
            .with_defaults(default.map(|port| ("http.port".to_owned(), port.to_string())));
        prop_assert!(faults.is_empty());
        let expected = flag.or(environment).or(file).or(default).unwrap_or(80);
        prop_assert_eq!(settings.reader().read(&PORT), Some(expected));
    }
}

#[test]
fn nested_tables_and_lists_of_a_file_become_dotted_names_and_comma_lists() {
    let settings = Sources {
        file: "kafka.brokers = ['one:1', 'two:2']\nhttp = { port = 0x1F }\n[service]\nname = 'x'",
        ..Sources::default()
    }
    .load();
    let mut reader = settings.reader();
    assert_eq!(reader.read(&BROKERS), Some(vec!["one:1".into(), "two:2".into()]));
    assert_eq!(reader.read(&PORT), Some(31));
    assert_eq!(reader.read(&NAME), Some("x".to_owned()));
    assert_eq!(reader.finish(Some(())), Ok(()));
}

#[test]
fn all_faults_come_at_once_each_with_its_key_its_place_and_what_would_be_right() {
    let complaint = complaint(
        &Sources {
            file: "\n[http]\nport = 'eighty'\n",
            variables: vec![variable("ALLOCATOR__KAFKA__BROKERS", "a:1,,b:2")],
            flags: vec!["kafka.brokerz=a".into()],
        }
        .load(),
    );
    let lines: Vec<&str> = complaint.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "http.port (allocator.toml:3): found \"eighty\"; expected a whole number from 0 to 65535",
            "service.name (not set): required: What it is called.",
            "kafka.brokers ($ALLOCATOR__KAFKA__BROKERS): found \"a:1,,b:2\"; \
             expected one or more texts separated by commas, none of them empty",
            "kafka.brokerz (--set): no such setting; did you mean kafka.brokers?",
        ]
    );
}

#[test]
fn a_secret_is_never_printed() {
    const SECRET: &str = "hunter2";
    let wrong = Sources {
        // The right key with a wrong value, and the secret under a misspelt key.
        file: "[service]\nname = 'x'\n[kafka]\npasswort = 'hunter2'\n",
        variables: vec![variable("ALLOCATOR__KAFKA__PASSWORD", SECRET)],
        flags: Vec::new(),
    };
    let settings = wrong.load();
    let complaint = complaint(&settings);
    assert_eq!(complaint.lines().count(), 3, "{complaint}");
    assert!(!complaint.contains(SECRET), "{complaint}");

    let mut faults = Vec::new();
    Sources {
        file: "[kafka]\npassword = 'hunter2",
        flags: vec!["kafka.password:hunter2".into()],
        ..Sources::default()
    }
    .load_with(&mut faults);
    assert_eq!(faults.len(), 2);
    assert!(!ConfigFaults(faults).to_string().contains(SECRET));
}

#[test]
fn a_list_item_with_a_comma_is_refused_and_not_split() {
    let mut faults = Vec::new();
    Sources { file: "kafka.brokers = ['a:1,b:2']", ..Sources::default() }.load_with(&mut faults);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].key(), "kafka.brokers");
}

#[test]
fn a_section_of_another_process_is_left_alone_and_a_wrong_key_in_ones_own_is_not() {
    let refused = |file| {
        let settings = Sources { file, ..Sources::default() }.load();
        let mut reader = settings.reader();
        reader.shares_its_file(&["api", "service"]);
        reader.read(&NAME);
        reader.finish(Some(())).is_err()
    };
    assert!(!refused("[service]\nname = 'x'\n[api]\nanything = 1\n"));
    assert!(refused("[service]\nname = 'x'\nnaem = 'y'\n"));
    assert!(refused("[service]\nname = 'x'\n[apy]\nanything = 1\n"));
}

#[test]
fn variables_of_others_are_not_ours() {
    let settings = Sources {
        variables: vec![
            variable("ALLOCATOR", "x"),
            variable("PATH", "/"),
            variable("ALLOCATOR_X", "1"),
        ],
        flags: vec!["service.name=x".into()],
        ..Sources::default()
    }
    .load();
    assert_eq!(complaint(&settings), "");
}

#[test]
fn a_named_file_must_exist() {
    let empty = tempfile::tempdir().unwrap();
    let args = ConfigArgs { config: Some(empty.path().join("none.toml")), set: Vec::new() };
    let faults = Settings::load(&args).unwrap_err().to_string();
    assert!(faults.contains("none.toml"), "{faults}");
}

#[test]
fn the_reference_has_a_row_for_each_key() {
    let table = reference(&[KEYS]);
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(
        rows,
        [
            "| `http.port` | `80` | port | Where it listens. |",
            "| `service.name` | *required* |  | What it is called. |",
            "| `kafka.brokers` | `a:1` | host:port | Where Kafka is. |",
            "| `kafka.password` | `0` |  | A secret of digits. (secret) |",
        ]
    );
}

#[test]
fn the_defaults_of_this_crate_are_those_of_its_structs() {
    let settings = Settings::default();
    let mut reader = settings.reader();
    let http = crate::http::HttpConfig::read(&mut reader);
    let health = crate::health::HealthConfig::read(&mut reader);
    let telemetry = crate::telemetry::TelemetryConfig::read(&mut reader);
    assert_eq!(reader.finish(Some(())), Ok(()));
    assert_eq!(http, Some(crate::http::HttpConfig::default()));
    assert_eq!(health, Some(crate::health::HealthConfig::default()));
    assert!(telemetry.is_some());
}
