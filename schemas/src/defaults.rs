//! The budget that every deployment starts with.

use crate::Budget;

/// The budgets of `default_budgets.json`, which a deployment defines at its first start.
///
/// # Errors
/// When the file does not parse; a test holds that it does.
pub fn default_budgets() -> Result<Vec<Budget>, serde_json::Error> {
    serde_json::from_str(include_str!("../default_budgets.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_budget_is_sound_and_has_the_ten_divisions_of_cofog()
    -> Result<(), serde_json::Error> {
        let budgets = default_budgets()?;
        assert_eq!(budgets.len(), 1);
        assert_eq!(budgets[0].id.as_str(), "taxes");
        assert_eq!(budgets[0].categories.len(), 10);
        assert_eq!(budgets[0].faults(), []);
        Ok(())
    }
}
