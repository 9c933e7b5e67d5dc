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
        for fault in self.errors.iter().take(MAX_FAULTS) {
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
