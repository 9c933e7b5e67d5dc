//! What a server says when it does not do what it was asked, in one line for a person.

use serde::Deserialize;

use crate::import::file::shown;

/// A problem (RFC 9457) as far as a client looks at it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Problem {
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

impl Problem {
    /// The problem in an answer's body; an empty one where there is none.
    pub fn in_body(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether it is of a kind, by its slug.
    pub fn is(&self, slug: &str) -> bool {
        self.kind.rsplit('/').next() == Some(slug)
    }

    /// One line about it, with as many of its faults as fit. Bounded, and fit for a terminal.
    pub fn line(&self, status: u16) -> String {
        const FAULTS_SHOWN: usize = 4;
        let mut parts = vec![format!("{status}")];
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        if !text.is_empty() {
            parts.push(bounded(text));
        }
        for fault in self.errors.iter().take(FAULTS_SHOWN) {
            parts.push(format!("{} {}", shown(&fault.pointer), bounded(&fault.detail)));
        }
        if self.errors.len() > FAULTS_SHOWN {
            parts.push(format!("and {} more", self.errors.len() - FAULTS_SHOWN));
        }
        parts.join("; ")
    }
}

fn bounded(text: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect()
}
