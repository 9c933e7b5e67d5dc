//! Formats a server's problem response as one line of text.

use serde::Deserialize;

use crate::import::file::quoted;

/// The members of a problem (RFC 9457) that an import reads.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServerProblem {
    /// `/problems/<slug>`.
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Debug, Clone, Deserialize)]
struct Fault {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    detail: String,
}

impl ServerProblem {
    /// Parses the problem of a response body. Empty if the body has none.
    pub fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether the problem has this slug.
    pub fn is(&self, slug: &str) -> bool {
        self.kind.rsplit('/').next() == Some(slug)
    }

    /// Formats status, detail and the first faults as one bounded line without control characters.
    pub fn summary(&self, status: u16) -> String {
        const MAX_FAULTS: usize = 4;
        let mut parts = vec![format!("{status}")];
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        if !text.is_empty() {
            parts.push(bounded(text));
        }
        // The detail of a single fault repeats that fault.
        let is_said = |fault: &&Fault| !fault.detail.is_empty() && text.ends_with(&fault.detail);
        for fault in self.errors.iter().filter(|fault| !is_said(fault)).take(MAX_FAULTS) {
            parts.push(format!("{} {}", quoted(&fault.pointer), bounded(&fault.detail)));
        }
        if self.errors.len() > MAX_FAULTS {
            parts.push(format!("and {} more", self.errors.len() - MAX_FAULTS));
        }
        parts.join("; ")
    }
}

fn bounded(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(body: &str) -> String {
        ServerProblem::parse(body.as_bytes()).summary(422)
    }

    #[test]
    fn a_summary_says_nothing_twice() {
        let one = r#"{"title":"Invalid","detail":"`/allocation` must make 100","errors":[{"pointer":"/allocation","detail":"must make 100"}]}"#;
        assert_eq!(summary(one), "422; `/allocation` must make 100");
        let two = r#"{"detail":"2 faults; `errors` lists them all","errors":[{"pointer":"/a","detail":"is wrong"},{"pointer":"/b","detail":"is wrong"}]}"#;
        let text = summary(two);
        assert_eq!(text.matches("is wrong").count(), 2, "{text}");
    }
}
