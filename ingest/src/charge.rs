//! Charges submissions to the rate limits: each as one item, of its person.

use std::collections::HashMap;

use runtime::limits::{LimitTicket, PersonHash};
use runtime::problem::Problem;

use crate::pending::PendingSubmission;

/// Charges a request with so many items, of which `submissions` are valid.
///
/// # Errors
/// The problem of a request beyond a limit. Nothing is charged then.
pub(crate) async fn charge(
    ticket: &LimitTicket,
    submissions: &[PendingSubmission],
    items: usize,
) -> Result<(), Problem> {
    let items = u32::try_from(items).unwrap_or(u32::MAX);
    let person =
        |pending: &PendingSubmission| PersonHash::from_bytes(*pending.submission.person.as_bytes());
    if let [only] = submissions {
        return ticket.charge(&[(person(only), 1)], items).await;
    }
    let mut by_person: HashMap<PersonHash, u32> = HashMap::with_capacity(submissions.len());
    for pending in submissions {
        *by_person.entry(person(pending)).or_default() += 1;
    }
    let people: Vec<(PersonHash, u32)> = by_person.into_iter().collect();
    ticket.charge(&people, items).await
}
