//! The API as an OpenAPI 3.1 document: what the routes of `ingest` and `api` say about themselves.
//!
//! `docs/openapi.json` is this document; `api` serves that file, and a test compares both. Bodies that the services
//! write byte by byte, and those that every route shares, are described in `components.json`.

use serde_json::{Map, Value, json};

const COMPONENTS: &str = include_str!("components.json");

/// Builds the document, indented, with members in alphabetical order.
///
/// # Errors
/// If a description is not JSON, which a test rules out.
pub fn document() -> serde_json::Result<String> {
    let mut paths = Map::new();
    let mut components: Value = serde_json::from_str(COMPONENTS)?;
    for part in api::openapi().into_iter().chain([ingest::openapi()]) {
        let mut part = serde_json::to_value(part)?;
        merge(&mut paths, part["paths"].take());
        if let Some(schemas) = components["schemas"].as_object_mut() {
            merge(schemas, part["components"]["schemas"].take());
        }
    }
    for operations in paths.values_mut().filter_map(Value::as_object_mut) {
        for operation in operations.values_mut() {
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            parameters.into_iter().flatten().for_each(without_null);
            let contents = operation.pointer_mut("/requestBody/content");
            let contents = contents.and_then(Value::as_object_mut).into_iter().flatten();
            contents.for_each(|(_, content)| without_null(content));
            operation["responses"]["default"] = json!({"$ref": "#/components/responses/Problem"});
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tax Budget Allocator",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Everyone splits a budget; everyone sees the exact average.",
            "description": "Fields and routes may be added; none is renamed or removed. Examples: docs/http.md.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"}
        },
        "tags": [
            {"name": "budgets", "description": "Definitions of budgets"},
            {"name": "submissions", "description": "What people submit"},
            {"name": "results", "description": "What everyone sees"},
            {"name": "embedding", "description": "Results on other sites"},
            {"name": "administration", "description": "The state of the service, for administrators"},
            {"name": "jobs", "description": "Background jobs, for administrators"},
            {"name": "annulments", "description": "People who do not count, for administrators"},
            {"name": "dead letters", "description": "Records that cannot be counted, for administrators"}
        ],
        "paths": paths,
        "components": components
    });
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

/// Removes `null` from the types of an optional parameter or body: a request leaves it out.
fn without_null(described: &mut Value) {
    let Some(of_schema) = described.pointer_mut("/schema/type") else { return };
    let Some(types) = of_schema.as_array_mut() else { return };
    types.retain(|name| name != "null");
    if let [only] = &types[..] {
        *of_schema = only.clone();
    }
}

/// Adds members; two objects under the same name become one.
fn merge(into: &mut Map<String, Value>, from: Value) {
    let Value::Object(from) = from else { return };
    for (name, value) in from {
        match into.get_mut(&name) {
            Some(Value::Object(known)) => merge(known, value),
            _ => {
                into.insert(name, value);
            }
        }
    }
}
