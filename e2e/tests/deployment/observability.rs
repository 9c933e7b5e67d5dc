//! Prometheus scrapes what there is, and every metric in an alert or on the dashboard is one that the code shows.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::code;
use crate::compose::{Compose, configuration, yaml};

const ALERTS: &str = "prometheus/alerts.yml";
const DASHBOARD: &str = "grafana/dashboards/submission.json";

/// Metrics that are not ours to define: Prometheus' own, and those of the operating system's process.
const FOREIGN: [&str; 3] = ["up", "process_cpu_seconds_total", "process_resident_memory_bytes"];

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(code::root())
        .output()
        .expect("promtool is needed: local/install prometheus");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}\n{out}{err}");
}

fn alert_expressions() -> Vec<String> {
    let alerts: Value = yaml(ALERTS);
    let rules = alerts["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&code::read(DASHBOARD)).unwrap();
    dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .cloned()
        .collect()
}

fn dashboard_expressions() -> Vec<String> {
    let targets =
        panels().into_iter().flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    targets
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "1m"))
        .collect()
}

/// The words of an expression that could be metrics: what stands in quotes cannot.
fn words(expression: &str) -> BTreeSet<&str> {
    expression
        .split('"')
        .step_by(2)
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect()
}

#[test]
fn every_metric_in_an_alert_or_on_the_dashboard_is_one_that_the_code_shows() {
    let known = code::metrics();
    assert!(
        known.contains_key("allocator_http_requests_total"),
        "the sources were not understood: {known:?}"
    );
    let is_known = |word: &str| {
        known.contains_key(word)
            || ["_bucket", "_sum", "_count"].iter().any(|suffix| {
                let registrar = word.strip_suffix(suffix).and_then(|name| known.get(name));
                registrar.is_some_and(|registrar| registrar.starts_with("histogram"))
            })
    };
    for expression in alert_expressions().iter().chain(&dashboard_expressions()) {
        let words = words(expression);
        let ours: Vec<_> = words.iter().filter(|word| word.starts_with("allocator_")).collect();
        for word in &ours {
            assert!(is_known(word), "no source registers {word}: {expression}");
        }
        let foreign = FOREIGN.iter().any(|metric| words.contains(metric));
        assert!(!ours.is_empty() || foreign, "no metric in {expression}");
    }
}

#[test]
fn alerts_and_dashboard_count_the_partitions_that_there_are() {
    let partitions = configuration()["log.partitions"].clone();
    let alert =
        alert_expressions().into_iter().find(|e| e.contains("count(max by (partition)")).unwrap();
    assert!(alert.ends_with(&format!("< {partitions}")), "{alert}");
    let owned = panels().into_iter().find(|panel| panel["title"] == "Owned partitions").unwrap();
    let green = owned["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"].to_string();
    assert_eq!(green, partitions);
}

#[test]
fn every_target_is_a_service_and_the_port_it_listens_on() {
    let prometheus: Value = yaml("prometheus/prometheus.yml");
    let compose = Compose::read();
    let listening = compose.listening();
    let mut scraped = BTreeSet::new();
    for job in prometheus["scrape_configs"].as_array().unwrap() {
        let name = job["job_name"].as_str().unwrap().to_owned();
        if name == "prometheus" {
            assert_eq!(
                job["static_configs"][0]["targets"],
                json!([format!("localhost:{}", listening["prometheus"])])
            );
            continue;
        }
        let discovery = &job["dns_sd_configs"][0];
        assert_eq!(discovery["names"], json!([name]));
        assert_eq!(discovery["port"], json!(listening[name.as_str()]), "{name}");
        scraped.insert(name);
    }
    assert_eq!(scraped, compose.ours().map(|(name, _)| name.to_owned()).collect());
}

#[test]
fn prometheus_takes_its_configuration_and_its_rules() {
    promtool(&["check", "config", "prometheus/prometheus.yml"]);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["test", "rules", "prometheus/alerts.test.yml"]);
}

#[test]
fn every_expression_on_the_dashboard_is_promql() {
    let rules: Vec<Value> = dashboard_expressions()
        .into_iter()
        .enumerate()
        .map(|(index, expr)| json!({"record": format!("panel:{index}"), "expr": expr}))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("panels.yml");
    // JSON is YAML.
    fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn grafana_finds_its_source_and_its_dashboard() {
    let compose = Compose::read();
    let grafana = &compose.services["grafana"];
    let source: Value = yaml("grafana/provisioning/datasources/prometheus.yml");
    let source = &source["datasources"][0];
    assert_eq!(
        source["url"],
        json!(format!("http://prometheus:{}", compose.listening()["prometheus"]))
    );
    for panel in panels() {
        assert_eq!(panel["datasource"]["uid"], source["uid"], "{}", panel["title"]);
    }
    let provider: Value = yaml("grafana/provisioning/dashboards/allocator.yml");
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert_eq!(grafana.in_repository(path).as_deref(), Some("grafana/dashboards"));
    let home = grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert_eq!(grafana.in_repository(home).as_deref(), Some(DASHBOARD));
}
