//! The revoked personal codes in the control topic: one record for each budget, which only grows.

use async_trait::async_trait;
use schemas::{BudgetId, MAX_REVOKED_RANGES, RevokedCodes, SerialSet, StoredRevocations};
use tokio::sync::watch;

use super::ControlTopicError;

/// The revoked codes of all budgets.
#[async_trait]
pub trait CodeRevocations: Send + Sync + 'static {
    /// Subscribes to what is known. Changes of every process reach it within a second.
    fn subscribe_revoked(&self) -> watch::Receiver<RevokedCodes>;

    /// Revokes codes of a budget, excluding concurrent changes, and returns all that are revoked then. Has no effect on
    /// codes that were revoked before.
    ///
    /// # Errors
    /// When the record is a newer release's or would become too large, or the topic is unavailable.
    async fn revoke(
        &self,
        budget: &BudgetId,
        serials: &SerialSet,
    ) -> Result<SerialSet, RevokeError>;
}

/// Why codes were not revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// This release does not understand the whole record: a change would drop the rest.
    #[error(
        "the record of the budget's revoked codes is damaged, or a newer release wrote it: use that release's command"
    )]
    NotUnderstood,
    /// The record would be too large.
    #[error(
        "a budget may have at most {MAX_REVOKED_RANGES} ranges of revoked serial numbers: revoke neighbouring numbers as ranges"
    )]
    TooManyRanges,
    /// The topic is unavailable, or the outcome is unknown: repeat the command.
    #[error("{0}")]
    Unavailable(#[from] ControlTopicError),
}

/// Decides what is revoked after `serials` are: `Ok(Some)` is written, `Ok(None)` leaves the record unchanged.
pub(super) fn revoke(
    current: Option<&StoredRevocations>,
    serials: &SerialSet,
) -> Result<Option<SerialSet>, RevokeError> {
    let mut revoked = match current {
        None => SerialSet::default(),
        Some(StoredRevocations::Understood(revoked)) => revoked.clone(),
        Some(StoredRevocations::PartlyUnderstood(_) | StoredRevocations::Unreadable) => {
            return Err(RevokeError::NotUnderstood);
        }
    };
    if revoked.includes(serials) {
        return Ok(None);
    }
    revoked.extend(serials);
    if revoked.ranges().len() > MAX_REVOKED_RANGES {
        return Err(RevokeError::TooManyRanges);
    }
    Ok(Some(revoked))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_bounded_and_fits_into_a_message() {
        let highest = 33_554_431_u32;
        let most = u32::try_from(MAX_REVOKED_RANGES).unwrap();
        let ranges =
            |count: u32| (0..count).map(|number| highest - 4 * number - 1..=highest - 4 * number);
        let full: SerialSet = ranges(most).collect();
        let budget = BudgetId::parse(&"b".repeat(64)).unwrap();
        assert!(StoredRevocations::record(&budget, &full).len() < 700_000);
        assert_eq!(revoke(None, &full), Ok(Some(full.clone())));
        let full = StoredRevocations::Understood(full);
        let more: SerialSet = ranges(most + 1).collect();
        assert_eq!(revoke(Some(&full), &more), Err(RevokeError::TooManyRanges));
        // A range in place of many has room.
        let all: SerialSet = std::iter::once(0..=highest).collect();
        assert_eq!(revoke(Some(&full), &all), Ok(Some(all.clone())));
        assert_eq!(revoke(Some(&StoredRevocations::Understood(all)), &more), Ok(None));
        for current in
            [StoredRevocations::PartlyUnderstood(more.clone()), StoredRevocations::Unreadable]
        {
            assert_eq!(revoke(Some(&current), &more), Err(RevokeError::NotUnderstood));
        }
    }
}
