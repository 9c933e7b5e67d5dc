//! The page that shows an OpenAPI document to readers.

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use crate::assets::Assets;

const SCHEMAS: &str = "#/components/schemas/";

/// Renders the operations of an OpenAPI document by tag, and its schemas. The document is our own.
pub fn contract_page(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let folder = Assets::embedded().folder();
    let page = html! {
        (DOCTYPE)
        html lang="en" dir="ltr" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) ": API" }
                link rel="stylesheet" href={ (folder) "page.css" };
                link rel="icon" href={ (folder) "icon.svg" } type="image/svg+xml";
            }
            body data-page="docs" {
                main {
                    h1 { (title) ": API" }
                    p { (text(&document["info"]["summary"])) }
                    p { (text(&document["info"]["description"])) }
                    p { a href="/openapi.json" { "OpenAPI document" } " " a href="/problems" { "Problems" } }
                    @for tag in items(&document["tags"]) {
                        h2 { (text(&tag["description"])) }
                        @for (path, method, operation) in operations(document, text(&tag["name"])) {
                            (operation_section(path, method, operation))
                        }
                    }
                    h2 { "Schemas" }
                    @for (name, schema) in members(&document["components"]["schemas"]) {
                        h3 id=(name) { (name) }
                        pre tabindex="0" { (pretty(schema)) }
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Returns path, method and operation of everything under a tag.
fn operations<'a>(
    document: &'a Value,
    tag: &str,
) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    let is_tagged = move |operation: &Value| items(&operation["tags"]).any(|name| name == tag);
    members(&document["paths"]).flat_map(move |(path, methods)| {
        let methods = members(methods).filter(|(_, operation)| is_tagged(operation));
        methods.map(|(method, operation)| (path, method, operation)).collect::<Vec<_>>()
    })
}

fn operation_section(path: &str, method: &str, operation: &Value) -> Markup {
    let role = operation["security"][0]["administrator"][0].as_str();
    html! {
        section id=(text(&operation["operationId"])) {
            h3 { code { (method.to_uppercase()) " " (path) } }
            p { (text(&operation["summary"])) @if let Some(role) = role { " (role " code { (role) } ")" } }
            @if items(&operation["parameters"]).next().is_some() {
                ul {
                    @for parameter in items(&operation["parameters"]) {
                        li {
                            code { (text(&parameter["name"])) }
                            " (" (text(&parameter["in"]))
                            @if parameter["required"] == true { ", required" }
                            "): " (text(&parameter["description"]))
                        }
                    }
                }
            }
            @for (media_type, content) in members(&operation["requestBody"]["content"]) {
                p { "Body: " code { (media_type) } " " (schema_link(&content["schema"])) }
            }
            ul {
                @for (status, response) in members(&operation["responses"]) {
                    @if status != "default" {
                        li {
                            code { (status) } ": " (text(&response["description"]))
                            @for (media_type, content) in members(&response["content"]) {
                                "; " code { (media_type) } " " (schema_link(&content["schema"]))
                            }
                        }
                    }
                }
                li { "else: " code { "application/problem+json" } " " a href="#Problem" { "Problem" } }
            }
        }
    }
}

fn schema_link(schema: &Value) -> Markup {
    match schema["$ref"].as_str().and_then(|target| target.strip_prefix(SCHEMAS)) {
        Some(name) => html! { a href={ "#" (name) } { (name) } },
        None => html! {},
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operation_and_schema_is_shown_and_escaped() {
        let page = contract_page(&json!({
            "info": {"title": "<T>"},
            "tags": [{"name": "a", "description": "All of a"}],
            "paths": {"/x/{id}": {"get": {
                "tags": ["a"], "operationId": "getX", "summary": "Read <x>",
                "parameters": [{"name": "id", "in": "path", "required": true, "description": "an id"}],
                "responses": {"200": {"description": "fine", "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/X"}}
                }}},
                "security": [{"administrator": ["viewer"]}]
            }}},
            "components": {"schemas": {"X": {"type": "object"}}}
        }));
        for part in [
            "GET /x/{id}",
            "Read &lt;x&gt;",
            "<code>viewer</code>",
            "<code>id</code> (path, required): an id",
            "<a href=\"#X\">X</a>",
            "<h3 id=\"X\">X</h3>",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("<x>"));
    }
}
