//! Which people a request selects.

use fraud::selection::{SelectionError, SignalFilter, people_of};
use schemas::{AnnulmentSelection, BudgetId, PersonKey};
use storage::signals::SignalReader;

use crate::BackendError;

/// Returns the selected people in order, each once. Dropping the future ends the reading of signals.
///
/// # Errors
/// When the signals cannot be read, or are of too many people; or the keys of named people are erased.
pub async fn select(
    signals: &dyn SignalReader,
    budget: &BudgetId,
    selection: &AnnulmentSelection,
) -> Result<Vec<PersonKey>, BackendError> {
    let filter = match *selection {
        AnnulmentSelection::Persons { ref persons } => return Ok(persons.as_slice().to_vec()),
        AnnulmentSelection::ErasedPersons { .. } => {
            let reason = "the keys of the people are erased, since their job has ended";
            return Err(BackendError::Invalid(reason.to_owned()));
        }
        AnnulmentSelection::Network { network, span } => {
            SignalFilter::Network { network, from_ms: span.from_ms(), until_ms: span.until_ms() }
        }
        AnnulmentSelection::Ballot { ballot, span } => {
            SignalFilter::Ballot { ballot, from_ms: span.from_ms(), until_ms: span.until_ms() }
        }
    };
    people_of(signals, budget, &filter).await.map_err(|error| match error {
        SelectionError::Read(error) => error.into(),
        SelectionError::TooMany { .. } => BackendError::Invalid(error.to_string()),
    })
}
