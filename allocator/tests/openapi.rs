//! `docs/openapi.json` is what the code says about its routes, and says it of every route.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Pages and what belongs to them.
const PAGES: [&str; 4] = ["/budgets", "/embed", "/assets/", "/admin"];
/// The document and its page, the page of the only budget, and another spelling of `/aggregate/`.
const UNDESCRIBED: [&str; 4] = ["/openapi.json", "/docs", "/", "/aggregate"];

fn committed() -> String {
    fs::read_to_string(format!("{ROOT}/docs/openapi.json")).unwrap()
}

/// The methods of each path in the document.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document: Value = serde_json::from_str(&committed()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            (path.clone(), methods.map(|method| method.to_uppercase()).collect())
        })
        .collect()
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    assert!(
        committed() == allocator::openapi::document().unwrap(),
        "write the output of `cargo run -p allocator -- openapi` to docs/openapi.json"
    );
}

#[test]
fn the_described_number_of_people_in_an_annulment_is_the_one_that_is_accepted() {
    let document: Value = serde_json::from_str(&committed()).unwrap();
    let persons = &document["components"]["schemas"]["AnnulmentRequest"]["properties"]["persons"];
    assert_eq!(persons["maxItems"], schemas::MAX_NAMED_PEOPLE);
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The paths of all routes in the code of the two services: the first text in each call of `route`.
fn routes_in_code() -> BTreeSet<String> {
    let mut files = Vec::new();
    for service in ["api", "ingest"] {
        sources(&Path::new(ROOT).join(service).join("src"), &mut files);
    }
    let mut routes = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        for call in source.split(".route(").skip(1) {
            let path = call.split('"').nth(1).unwrap_or_default();
            if path.starts_with('/') {
                routes.insert(path.to_owned());
            }
        }
    }
    routes
}

fn is_for_machines(path: &str) -> bool {
    !UNDESCRIBED.contains(&path) && !PAGES.iter().any(|page| path.starts_with(page))
}

#[test]
fn every_route_for_machines_is_described_and_no_other() {
    let routes: BTreeSet<String> =
        routes_in_code().into_iter().filter(|path| is_for_machines(path)).collect();
    assert!(routes.len() > 20, "{routes:?}");
    let described: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(routes, described, "describe a route with #[utoipa::path(…)] above its handler");
}

#[tokio::test]
async fn a_route_has_the_methods_that_are_described() {
    let data = TempDir::new().unwrap();
    let running = running::start(data.path());
    let client = runtime::http_client::builder().build().unwrap();
    for (path, methods) in documented() {
        let mut url = format!("{}{path}", running.url);
        for (name, value) in [("{budget}", "taxes"), ("{person}", "p-1"), ("{id}", "1")] {
            url = url.replace(name, value);
        }
        let response = client.request(Method::OPTIONS, &url).send().await.unwrap();
        let allowed = match response.status().as_u16() {
            204 => response.headers()["allow"].to_str().unwrap().to_owned(),
            status => panic!("OPTIONS {path}: {status}"),
        };
        let allowed: BTreeSet<String> = allowed
            .split(',')
            .map(|method| method.trim().to_owned())
            .filter(|method| method != "HEAD")
            .collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn the_service_serves_the_document_and_a_page_of_it() {
    let data = TempDir::new().unwrap();
    let running = running::start(data.path());
    let client = runtime::http_client::builder().build().unwrap();
    let get = async |path: &str| client.get(format!("{}{path}", running.url)).send().await.unwrap();
    let served = get("/openapi.json").await;
    assert_eq!(served.headers()["content-type"], "application/json");
    assert_eq!(served.headers()["access-control-allow-origin"], "*");
    assert_eq!(served.text().await.unwrap(), committed());
    let page = get("/docs").await.text().await.unwrap();
    for (path, methods) in documented() {
        for method in methods {
            assert!(page.contains(&format!("{method} {path}")), "{method} {path}");
        }
    }
}
