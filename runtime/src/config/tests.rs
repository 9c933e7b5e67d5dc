//! Tests of layering and parsing, on raw sources: file text, environment, flags.

use std::ffi::OsString;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

settings! {
    /// Keys with and without a default, a unit and secrecy.
    #[derive(Debug, PartialEq)]
    struct TestSettings {
        /// Port to
        /// listen on.
        port: u16 = "http.port", default "80", unit "port", parse parse::u16;
        /// Name of the service.
        name: String = "service.name", required, unit "", parse parse::non_empty;
        /// Kafka brokers.
        brokers: Vec<String> = "kafka.brokers", default "a:1", unit "host:port", parse parse::list;
        /// A secret of digits.
        password: u64 = "kafka.password", default "0", unit "", parse leaky_number, secret;
    }
}

/// A parser that repeats the text, which parsers must not do.
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

/// The printed faults of the settings; empty if there are none.
fn printed_faults(settings: &Settings) -> String {
    let mut reader = settings.reader();
    let typed = TestSettings::read(&mut reader);
    reader.finish(typed).map_or_else(|faults| faults.to_string(), |_| String::new())
}

proptest! {
    #[test]
    fn the_strongest_layer_with_a_value_wins(
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
        prop_assert_eq!(settings.reader().read(&TestSettings::port), Some(expected));
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
    assert_eq!(reader.read(&TestSettings::brokers), Some(vec!["one:1".into(), "two:2".into()]));
    assert_eq!(reader.read(&TestSettings::port), Some(31));
    assert_eq!(reader.read(&TestSettings::name), Some("x".to_owned()));
    assert_eq!(reader.finish(Some(())), Ok(()));
}

#[test]
fn all_faults_are_reported_at_once_with_key_source_and_expectation() {
    let printed = printed_faults(
        &Sources {
            file: "\n[http]\nport = 'eighty'\n",
            variables: vec![variable("ALLOCATOR__KAFKA__BROKERS", "a:1,,b:2")],
            flags: vec!["kafka.brokerz=a".into()],
        }
        .load(),
    );
    let lines: Vec<&str> = printed.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "http.port (allocator.toml:3): found \"eighty\"; expected a whole number from 0 to 65535",
            "service.name (not set): required: Name of the service.",
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
    let printed = printed_faults(&settings);
    assert_eq!(printed.lines().count(), 3, "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");

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
fn a_list_item_with_a_comma_is_rejected_and_not_split() {
    let mut faults = Vec::new();
    Sources { file: "kafka.brokers = ['a:1,b:2']", ..Sources::default() }.load_with(&mut faults);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].key(), "kafka.brokers");
}

#[test]
fn unknown_keys_are_faults_except_in_sections_of_other_services() {
    let refused = |file| {
        let settings = Sources { file, ..Sources::default() }.load();
        let mut reader = settings.reader();
        reader.ignore_sections_of_other_services(&["api", "service"]);
        reader.read(&TestSettings::name);
        reader.finish(Some(())).is_err()
    };
    assert!(!refused("[service]\nname = 'x'\n[api]\nanything = 1\n"));
    assert!(refused("[service]\nname = 'x'\nnaem = 'y'\n"));
    assert!(refused("[service]\nname = 'x'\n[apy]\nanything = 1\n"));
}

#[test]
fn variables_without_our_prefix_are_ignored() {
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
    assert_eq!(printed_faults(&settings), "");
}

#[test]
fn a_file_named_by_a_flag_must_exist() {
    let empty = tempfile::tempdir().unwrap();
    let args = ConfigArgs { config: Some(empty.path().join("none.toml")), set: Vec::new() };
    let faults = Settings::load(&args).unwrap_err().to_string();
    assert!(faults.contains("none.toml"), "{faults}");
}

#[test]
fn the_reference_has_one_row_per_key() {
    let table = reference(&[TestSettings::KEYS]);
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(
        rows,
        [
            "| `http.port` | `80` | port | Port to listen on. |",
            "| `service.name` | *required* |  | Name of the service. |",
            "| `kafka.brokers` | `a:1` | host:port | Kafka brokers. |",
            "| `kafka.password` | `0` |  | A secret of digits. (secret) |",
        ]
    );
}

#[test]
fn every_default_of_this_crate_parses() {
    defaults(crate::http::HttpConfig::read);
    defaults(crate::health::HealthConfig::read);
    defaults(crate::telemetry::TelemetryConfig::read);
    defaults(crate::admin::AdminConfig::read);
}
