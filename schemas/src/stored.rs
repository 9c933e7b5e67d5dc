//! Reads stored JSON documents that a newer release may have written.
//!
//! Read tolerantly: unknown members are listed, not rejected, so that the rest stays usable. Written carefully: whoever
//! replaces a whole document must refuse to replace one that is not fully understood, since that would drop the rest.
//!
//! A newer release that adds something which older releases must not ignore makes the document unreadable for them: by
//! an unknown value of a known member, or by naming the addition in the member `requires`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Names what a release must understand before it uses the document.
const REQUIRES: &str = "requires";

/// A stored document, and what this release does not understand of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDocument<T> {
    /// The understood part.
    pub value: T,
    /// JSON pointers of the unknown members; empty if everything is understood.
    pub not_understood: Vec<String>,
}

/// Reads a document that may require the additions which `known` names.
///
/// # Errors
/// When it is damaged, or can only be used by a newer release: a description.
pub(crate) fn read<T: Serialize + DeserializeOwned>(
    json: &[u8],
    known: &[&str],
) -> Result<StoredDocument<T>, String> {
    let value: T = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    // What the value writes again is what was understood.
    let understood = serde_json::to_value(&value).map_err(|error| error.to_string())?;
    let mut document: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let Some(members) = document.as_object_mut() else { return Err("it is no object".to_owned()) };
    if let Some(required) = members.remove(REQUIRES)
        && !is_known(&required, known)
    {
        return Err(format!("only a release that knows {required} can use it"));
    }
    let mut not_understood = Vec::new();
    list_unknown("", &document, &understood, &mut not_understood);
    Ok(StoredDocument { value, not_understood })
}

/// Whether `required` names nothing but additions of `known`.
fn is_known(required: &Value, known: &[&str]) -> bool {
    match required {
        Value::Null => true,
        Value::Array(names) => {
            names.iter().all(|name| name.as_str().is_some_and(|name| known.contains(&name)))
        }
        _ => false,
    }
}

/// Lists the members of `document` that `understood` lacks. An unknown `null` says nothing and is no member.
fn list_unknown(pointer: &str, document: &Value, understood: &Value, unknown: &mut Vec<String>) {
    match (document, understood) {
        (Value::Object(document), Value::Object(understood)) => {
            for (name, value) in document {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match understood.get(name) {
                    Some(understood) => list_unknown(&pointer, value, understood, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(pointer),
                }
            }
        }
        (Value::Array(document), Value::Array(understood)) => {
            for (index, (value, understood)) in document.iter().zip(understood).enumerate() {
                list_unknown(&format!("{pointer}/{index}"), value, understood, unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        id: u32,
    }

    fn not_understood(json: &str) -> Vec<String> {
        read::<Outer>(json.as_bytes(), &["notes"]).unwrap().not_understood
    }

    #[test]
    fn unknown_members_are_listed_at_every_depth() {
        assert_eq!(
            not_understood(
                r#"{"name":"a","new/er":1,"list":[{"id":1},{"id":2,"weight":{"x":1}}]}"#
            ),
            ["/list/1/weight", "/new~1er"]
        );
    }

    #[test]
    fn a_document_without_unknown_members_is_understood_whatever_it_leaves_out() {
        for json in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","note":null,"newer":null,"requires":[]}"#,
            r#"{"name":"a","requires":["notes"]}"#,
            r#"{"name":"a","requires":null}"#,
            r#"{ "list" : [ {"id":1} ], "note":"b", "name":"a" }"#,
        ] {
            assert_eq!(not_understood(json), [""; 0], "{json}");
        }
    }

    #[test]
    fn a_document_that_requires_known_additions_alone_is_read() {
        let read = |json: &str| read::<Outer>(json.as_bytes(), &["weights", "colours"]);
        let known = read(r#"{"name":"a","requires":["weights"]}"#).unwrap();
        assert_eq!(known.not_understood, [""; 0]);
        assert!(read(r#"{"name":"a","requires":["weights","sounds"]}"#).is_err());
    }

    #[test]
    fn a_document_that_requires_a_newer_release_is_not_read() {
        for json in [
            r#"{"name":"a","requires":["weights"]}"#,
            r#"{"name":"a","requires":["notes","weights"]}"#,
            r#"{"name":"a","requires":["notes",1]}"#,
            r#"{"name":"a","requires":true}"#,
            r#"{"name":5}"#,
            r#"["a"]"#,
            "",
        ] {
            assert!(read::<Outer>(json.as_bytes(), &["notes"]).is_err(), "{json}");
        }
    }
}
