//! Reports budgets whose persons are known by e-mail to a process that has no SMTP server.
//!
//! Such a process stays ready: its other budgets, and persons who have a session, need no mail.

use std::collections::HashSet;
use std::sync::Arc;

use schemas::{BudgetId, IdentityRule};
use storage::control::BudgetDefinitions;
use tokio_util::sync::CancellationToken;

/// Logs each budget with the identity rule `email` once, at the start or when it appears, until `stop`.
pub async fn report_budgets_without_email(
    definitions: Arc<dyn BudgetDefinitions>,
    stop: CancellationToken,
) {
    let mut changes = definitions.changes();
    let mut reported: HashSet<BudgetId> = HashSet::new();
    loop {
        changes.mark_unchanged();
        for budget in definitions.catalog().iter() {
            if budget.identity == IdentityRule::Email && reported.insert(budget.id.clone()) {
                let budget = &budget.id;
                tracing::error!(%budget, "sign-in by email is unavailable: email.smtp_url is not set");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
