//! Checks of Prometheus and Grafana: every service is scraped, and alerts and dashboards only use metrics and labels
//! that the code exposes.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::code;
use crate::compose::{Compose, yaml};
use crate::promql::{Expression, labels_of};

const ALERTS: &str = "prometheus/alerts.yml";
const ALERT_TESTS: &str = "prometheus/alerts.test.yml";
const DASHBOARD: &str = "grafana/dashboards/submission.json";

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

/// Returns the elements of a list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

fn alerts() -> Vec<Value> {
    let alerts: Value = yaml(ALERTS);
    list(&alerts["groups"]).flat_map(|group| list(&group["rules"])).cloned().collect()
}

fn alert_expressions() -> Vec<String> {
    alerts().iter().map(|alert| text(&alert["expr"]).to_owned()).collect()
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

fn dashboard_targets() -> Vec<Value> {
    panels().iter().flat_map(|panel| list(&panel["targets"])).cloned().collect()
}

fn dashboard_expressions() -> Vec<String> {
    let expression = |target: &Value| text(&target["expr"]).replace("$__rate_interval", "1m");
    dashboard_targets().iter().map(expression).collect()
}

/// Extracts the labels in a template: `{{ $labels.job }}` in an alert, `{{job}}` on the dashboard.
fn template_labels(template: &str) -> BTreeSet<&str> {
    let placeholders =
        template.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim());
    let labels = placeholders.filter(|placeholder| !placeholder.starts_with("$value"));
    labels.map(|label| label.strip_prefix("$labels.").unwrap_or(label)).collect()
}

#[test]
fn every_metric_and_label_in_alerts_and_dashboards_is_exposed_by_the_code() {
    let known = code::metrics();
    for (metric, label) in
        [("allocator_http_requests_total", "route"), ("allocator_processor_position", "partition")]
    {
        let labels = labels_of(metric, &known).expect("the sources were not parsed");
        assert!(labels.contains(label), "the sources were not parsed: {metric} has {labels:?}");
    }
    for text in alert_expressions().iter().chain(&dashboard_expressions()) {
        let expression = Expression::new(text);
        assert!(!expression.metrics().is_empty(), "no metric in {text}");
        let mut labels = BTreeSet::new();
        for metric in expression.metrics() {
            let of_this = labels_of(metric, &known);
            labels.extend(of_this.unwrap_or_else(|| panic!("no source exposes {metric}: {text}")));
        }
        for (metric, label) in expression.selections() {
            let of_this = labels_of(metric, &known);
            let has = of_this.is_some_and(|labels| labels.contains(label));
            assert!(has, "{metric} has no label {label}: {text}");
        }
        for label in expression.groupings() {
            assert!(labels.contains(label), "no metric has a label {label}: {text}");
        }
    }
}

#[test]
fn every_label_in_a_template_exists_in_its_expression() {
    let known = code::metrics();
    let alerts = alerts();
    let alert_templates = alerts.iter().flat_map(|alert| {
        let texts = alert["annotations"].as_object().unwrap().values();
        texts.map(|template| (text(template), text(&alert["expr"])))
    });
    let targets = dashboard_targets();
    let panel_templates = targets
        .iter()
        .map(|target| (target["legendFormat"].as_str().unwrap_or_default(), text(&target["expr"])));
    for (template, expression) in alert_templates.chain(panel_templates) {
        let expression = Expression::new(expression);
        let labels = expression.outcome(&known);
        for label in template_labels(template) {
            assert!(labels.contains(label), "no label {label} in {expression:?}: {template}");
        }
    }
}

/// The partition count can change at any time.
#[test]
fn alerts_and_dashboard_use_the_partition_count_that_the_processors_report() {
    let counting = |expressions: Vec<String>| {
        expressions.into_iter().find(|e| e.contains("count(max by (partition)")).unwrap()
    };
    for expression in [counting(alert_expressions()), counting(dashboard_expressions())] {
        assert!(expression.contains("max(allocator_processor_partitions)"), "{expression}");
    }
}

#[test]
fn every_scrape_target_is_a_service_and_its_port() {
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
fn prometheus_accepts_its_configuration_and_rules() {
    promtool(&["check", "config", "prometheus/prometheus.yml"]);
}

#[test]
fn the_local_prometheus_accepts_its_configuration_and_uses_the_same_rules() {
    let dir = tempfile::tempdir().unwrap();
    let rules = code::root().join(ALERTS);
    let config = code::read("local/config/prometheus.yml.in")
        .replace("@PORT@", "9090")
        .replace("@DATA@", dir.path().to_str().unwrap())
        .replace("@RULES@", rules.to_str().unwrap());
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, config).unwrap();
    promtool(&["check", "config", file.to_str().unwrap()]);
    assert!(code::read("local/lib/prometheus.sh").contains(&format!("RULES=$REPO_DIR/{ALERTS}")));
}

#[test]
fn alerts_fire_exactly_when_expected() {
    promtool(&["test", "rules", ALERT_TESTS]);
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let tests: Value = yaml(ALERT_TESTS);
    let expectations = list(&tests["tests"]).flat_map(|test| list(&test["promql_expr_test"]));
    let firing =
        expectations.filter(|test| text(&test["expr"]).contains("ALERTS{alertstate=\"firing\""));
    let samples: Vec<&Value> = firing.flat_map(|test| list(&test["exp_samples"])).collect();
    let fires: BTreeSet<&str> = samples
        .iter()
        .map(|sample| {
            let (_, rest) = text(&sample["labels"]).split_once("alertname=\"").unwrap();
            rest.split('"').next().unwrap()
        })
        .collect();
    let alerts = alerts();
    assert_eq!(fires, alerts.iter().map(|alert| text(&alert["alert"])).collect());
}

#[test]
fn alerts_are_silent_in_a_healthy_system_with_all_their_metrics() {
    let tests: Value = yaml(ALERT_TESTS);
    let healthy = &tests["tests"][0];
    assert_eq!(healthy["name"], "a healthy system is silent");
    let series = list(&healthy["input_series"])
        .map(|series| text(&series["series"]).split('{').next().unwrap());
    let present: BTreeSet<&str> = series.collect();
    for text in alert_expressions() {
        for metric in Expression::new(&text).metrics() {
            assert!(
                present.contains(metric),
                "{metric} is not among the series of a healthy system"
            );
        }
    }
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
fn grafana_provisions_its_data_source_and_dashboard() {
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
