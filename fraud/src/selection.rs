//! The people whom signals connect: those of one network, or those with one ballot, in a time span.

use std::collections::HashSet;

use schemas::{BallotDigest, BudgetId, NetworkDigest, PersonKey, Signal, SignalAction};
use storage::log::ReadError;
use storage::signals::{SignalQuery, SignalReader};

/// Maximum number of people of a selection: more is an error, never a part of them.
pub const MAX_SELECTED_PEOPLE: usize = 1_000_000;

/// Which signals are selected. Times are those of acceptance, in milliseconds since 1970; `until_ms` is excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalFilter {
    /// Submissions and withdrawals from a network. Its digest is of one UTC day.
    Network {
        /// The network.
        network: NetworkDigest,
        /// Start of the time span.
        from_ms: u64,
        /// End of the time span.
        until_ms: u64,
    },
    /// Submissions of a ballot.
    Ballot {
        /// The ballot.
        ballot: BallotDigest,
        /// Start of the time span.
        from_ms: u64,
        /// End of the time span.
        until_ms: u64,
    },
}

impl SignalFilter {
    fn accepted_ms(&self) -> std::ops::Range<u64> {
        match *self {
            Self::Network { from_ms, until_ms, .. } | Self::Ballot { from_ms, until_ms, .. } => {
                from_ms..until_ms
            }
        }
    }

    /// Whether the filter selects a signal.
    pub fn selects(&self, signal: &Signal) -> bool {
        self.accepted_ms().contains(&signal.accepted_at_ms)
            && match self {
                Self::Network { network, .. } => signal.origin.network == Some(*network),
                Self::Ballot { ballot, .. } => signal.action == SignalAction::Allocate(*ballot),
            }
    }
}

/// Why people could not be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The signals cannot be read.
    #[error("the signals cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The selection has too many people.
    #[error("the signals are of more than {max} people: choose a shorter time span")]
    TooMany {
        /// The maximum.
        max: usize,
    },
}

/// Returns the people of a budget whose signals a filter selects, each once, in ascending order of their keys.
///
/// Only signals that are not older than seven days are known, and signals are best effort: a person whose signal was
/// lost is missing. Dropping the future ends the reading.
///
/// # Errors
/// When the signals cannot be read, or are of more than [`MAX_SELECTED_PEOPLE`] people.
pub async fn people_of(
    signals: &dyn SignalReader,
    budget: &BudgetId,
    filter: &SignalFilter,
) -> Result<Vec<PersonKey>, SelectionError> {
    select(signals, budget, filter, MAX_SELECTED_PEOPLE).await
}

async fn select(
    signals: &dyn SignalReader,
    budget: &BudgetId,
    filter: &SignalFilter,
    max: usize,
) -> Result<Vec<PersonKey>, SelectionError> {
    let query = SignalQuery { budget: Some(budget.clone()), accepted_ms: filter.accepted_ms() };
    let mut batches = signals.read(query);
    let mut people = HashSet::new();
    while let Some(batch) = batches.recv().await {
        for signal in batch?.signals.iter().filter(|signal| filter.selects(signal)) {
            people.insert(signal.person);
            if people.len() > max {
                return Err(SelectionError::TooMany { max });
            }
        }
    }
    let mut people: Vec<PersonKey> = people.into_iter().collect();
    people.sort_unstable();
    Ok(people)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use schemas::{IdentityLevel, SignalOrigin};
    use storage::signals::{SignalBatch, SignalStream};
    use tokio::sync::mpsc;

    use super::*;

    /// Returns signals of new people without an end, or an error after the first of them.
    struct Endless {
        fails: bool,
    }

    impl SignalReader for Endless {
        fn read(&self, _: SignalQuery) -> SignalStream {
            let (sender, receiver) = mpsc::channel(1);
            let fails = self.fails;
            tokio::spawn(async move {
                for person in 0u128.. {
                    let signal = Signal {
                        budget: BudgetId::parse("taxes").unwrap(),
                        person: PersonKey::from_bytes(person.to_be_bytes()),
                        accepted_at_ms: 5,
                        action: SignalAction::Allocate(BallotDigest(1)),
                        origin: SignalOrigin {
                            network: None,
                            agent: None,
                            identity: IdentityLevel::Code,
                        },
                    };
                    let batch = SignalBatch { signals: vec![signal], done: 1, total: 1 };
                    let error = ReadError::Unavailable("for a test".into());
                    let item = if fails && person > 0 { Err(error) } else { Ok(batch) };
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
            });
            receiver
        }
    }

    #[tokio::test]
    async fn too_many_people_and_a_failed_read_are_errors_and_never_a_part_of_the_people() {
        let budget = BudgetId::parse("taxes").unwrap();
        let filter = SignalFilter::Ballot { ballot: BallotDigest(1), from_ms: 0, until_ms: 10 };
        let selected = select(&Endless { fails: false }, &budget, &filter, 100);
        let selected = tokio::time::timeout(Duration::from_secs(60), selected).await.unwrap();
        assert_eq!(selected, Err(SelectionError::TooMany { max: 100 }));
        let failed = select(&Endless { fails: true }, &budget, &filter, 100).await;
        assert!(matches!(failed, Err(SelectionError::Read(_))), "{failed:?}");
    }
}
