//! JSON view of the list of annulments.

use schemas::job::Job;
use schemas::{AnnulmentEntry, AnnulmentRegister, Restoration, SelectionSummary, SignalSpan};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rfc3339::rfc3339;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnnulmentList {
    /// Newest first.
    annulments: Vec<AnnulmentView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AnnulmentView {
    id: String,
    by: String,
    begun_at: Option<String>,
    selection: SelectionView,
    reason: String,
    /// `running`, `done`, `cancelled`, `restoring` or `restored`.
    state: &'static str,
    /// People selected.
    people: u64,
    /// Of these, people who counted before.
    changed: u64,
    restored: Option<RestorationView>,
    /// Whether no job goes on with what has not ended. Absent otherwise, and while jobs cannot be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct SelectionView {
    /// `persons`, `network` or `ballot`.
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ballot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RestorationView {
    by: String,
    at: Option<String>,
    people: u64,
}

impl AnnulmentList {
    /// Returns the view of a register. `jobs` is `None` if they are unknown.
    pub fn of(register: &AnnulmentRegister, jobs: Option<&[Job]>) -> Self {
        let view = |entry| AnnulmentView::of(entry, jobs);
        Self { annulments: register.entries().iter().rev().map(view).collect() }
    }
}

impl AnnulmentView {
    fn of(entry: &AnnulmentEntry, jobs: Option<&[Job]>) -> Self {
        Self {
            id: entry.id.to_string(),
            by: entry.by.to_string(),
            begun_at: rfc3339(entry.begun_at_ms),
            selection: SelectionView::of(&entry.selection),
            reason: entry.reason.to_string(),
            state: entry.state.name(),
            people: entry.people,
            changed: entry.changed,
            restored: entry.restored.as_ref().map(RestorationView::of),
            interrupted: jobs.is_some_and(|jobs| entry.is_interrupted(jobs)),
        }
    }
}

impl SelectionView {
    fn of(selection: &SelectionSummary) -> Self {
        let by_signals = |by, span: SignalSpan| Self {
            by,
            network: None,
            ballot: None,
            from: rfc3339(span.from_ms()),
            until: rfc3339(span.until_ms()),
        };
        match selection {
            SelectionSummary::Persons => {
                Self { by: "persons", network: None, ballot: None, from: None, until: None }
            }
            SelectionSummary::Network { network, span } => {
                Self { network: Some(network.to_string()), ..by_signals("network", *span) }
            }
            SelectionSummary::Ballot { ballot, span } => {
                Self { ballot: Some(ballot.to_string()), ..by_signals("ballot", *span) }
            }
        }
    }
}

impl RestorationView {
    fn of(restoration: &Restoration) -> Self {
        Self {
            by: restoration.by.to_string(),
            at: rfc3339(restoration.at_ms),
            people: restoration.people,
        }
    }
}
