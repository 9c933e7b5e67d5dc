//! Decides which submissions are refused because their budget has reached its cap on people.
//!
//! Only what would be appended is looked at: a repeated submission gets the receipt of the first one.

use std::collections::HashMap;

use schemas::PersonKey;
use storage::idempotency::BeginOutcome;

use super::plan::Plan;
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::people_cap::{PeopleCap, PersonStanding};

/// Returns the outcome of each refused submission, by its index.
pub(super) async fn refusals(
    cap: &PeopleCap,
    submissions: &[PendingSubmission],
    plan: &Plan,
    begun: &[BeginOutcome],
) -> HashMap<usize, AppendOutcome> {
    let mut indexes: Vec<usize> = Vec::new();
    let mut persons: Vec<PersonKey> = Vec::new();
    for (index, (pending, step)) in submissions.iter().zip(&plan.steps).enumerate() {
        let Some(max_people) = pending.max_people else { continue };
        let submission = &pending.submission;
        if step.begun(begun).is_some_and(BeginOutcome::may_append)
            && cap.is_reached(&submission.budget, max_people)
        {
            indexes.push(index);
            persons.push(submission.person);
        }
    }
    if persons.is_empty() {
        return HashMap::new();
    }
    let standings = cap.standings(&persons).await;
    let refused = indexes.into_iter().zip(standings).filter_map(|(index, standing)| {
        let outcome = match standing {
            PersonStanding::Known => return None,
            PersonStanding::New => AppendOutcome::Full,
            PersonStanding::Unknown => AppendOutcome::StandingUnknown,
        };
        Some((index, outcome))
    });
    refused.collect()
}
