//! The API as an OpenAPI 3.1 document: what the routes of `ingest` and `api` say about themselves.
//!
//! `docs/openapi.json` is this document; `api` serves that file, and a test compares both. Bodies that the services
//! write byte by byte, and those that every route shares, are described in `components.json`.

use schemas::{PERSON_MAX_BYTES, SLUG_MAX_BYTES};
use serde_json::{Map, Value, json};

const COMPONENTS: &str = include_str!("components.json");
const SLUG_PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// No control characters.
const PERSON_PATTERN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

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
            for parameter in parameters.into_iter().flatten() {
                without_null(parameter);
                bound_id(parameter);
            }
            if let Some(body) = operation.get_mut("requestBody") {
                body["required"] = is_required(body).into();
            }
            let contents = operation.pointer_mut("/requestBody/content");
            let contents = contents.and_then(Value::as_object_mut).into_iter().flatten();
            contents.for_each(|(_, content)| without_null(content));
            let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
            responses.into_iter().flat_map(Map::values_mut).for_each(name_linked_operations);
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

/// Bounds the ids in paths: what does not fit is malformed.
fn bound_id(parameter: &mut Value) {
    let (pattern, max_length) = match parameter["name"].as_str() {
        Some("budget") => (SLUG_PATTERN, SLUG_MAX_BYTES),
        Some("person") => (PERSON_PATTERN, PERSON_MAX_BYTES),
        _ => return,
    };
    if parameter["in"] == "path" {
        parameter["schema"]["pattern"] = pattern.into();
        parameter["schema"]["maxLength"] = max_length.into();
    }
}

/// Names the operations of a response's links as OpenAPI does; `utoipa` writes `operation_id`.
fn name_linked_operations(response: &mut Value) {
    let links = response.get_mut("links").and_then(Value::as_object_mut);
    for link in links.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if let Some(operation) = link.remove("operation_id") {
            link.insert("operationId".to_owned(), operation);
        }
    }
}

/// Whether a request needs its body: only the options of a job may be left out.
fn is_required(body: &Value) -> bool {
    let schema = body.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
    !schema.is_some_and(|schema| schema.ends_with("Options"))
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
