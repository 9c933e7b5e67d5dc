//! Why a shadow partition stops.

use engine::partition::{ClaimError, HaltReason, OwnerExit};
use storage::log::ReadError;
use storage::store::StoreError;

/// Why a shadow partition stopped; it is claimed again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShadowError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Halted(#[from] HaltReason),
    #[error(transparent)]
    Exited(#[from] OwnerExit),
    #[error("its owner panicked")]
    OwnerPanicked,
}
