//! The size of a run, which an environment variable shrinks to try a figure out.

use anyhow::{Context, Result};

/// Returns the number in an environment variable, or the default.
///
/// # Errors
/// When the variable is no number.
pub fn size(variable: &str, default: u32) -> Result<u32> {
    std::env::var(variable).map_or(Ok(default), |value| {
        value.parse().with_context(|| format!("{variable}={value} is no number"))
    })
}
