//! The default budgets of a new deployment.

use crate::Budget;

/// The id of the budget that is served where no budget is named.
pub const DEFAULT_BUDGET: &str = "taxes";

/// Parses `default_budgets.json`.
///
/// # Errors
/// When the embedded file does not parse, which a test rules out.
pub fn default_budgets() -> Result<Vec<Budget>, serde_json::Error> {
    serde_json::from_str(include_str!("../default_budgets.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_budget_is_valid_and_has_the_ten_divisions_of_cofog()
    -> Result<(), serde_json::Error> {
        let budgets = default_budgets()?;
        assert_eq!(budgets.len(), 1);
        assert_eq!(budgets[0].id.as_str(), DEFAULT_BUDGET);
        assert_eq!(budgets[0].categories.len(), 10);
        assert_eq!(budgets[0].faults(), []);
        Ok(())
    }
}
