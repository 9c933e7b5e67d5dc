//! Fake lists of annulments.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::*;
use storage::control::{AnnulmentChangeError, AnnulmentRegisters, ControlTopicError};

use super::Switch;

#[derive(Default)]
pub struct FakeAnnulments {
    pub switch: Switch,
    pub stored: Mutex<BTreeMap<BudgetId, StoredAnnulments>>,
}

#[async_trait]
impl AnnulmentRegisters for FakeAnnulments {
    async fn annulments(&self, budget: &BudgetId) -> Result<StoredAnnulments, ControlTopicError> {
        self.switch.pass().await.map_err(ControlTopicError::Unavailable)?;
        Ok(self.stored.lock().get(budget).cloned().unwrap_or_default())
    }

    async fn change_annulments(
        &self,
        _: &BudgetId,
        _: &AnnulmentChange,
    ) -> Result<AnnulmentRegister, AnnulmentChangeError> {
        panic!("an api only reads annulments");
    }
}

impl FakeAnnulments {
    /// Applies a change, as a job does.
    pub fn apply(&self, budget: &str, change: &AnnulmentChange) {
        let budget = BudgetId::parse(budget).unwrap();
        let mut stored = self.stored.lock();
        let current = stored.entry(budget).or_default();
        let mut register = current.register().unwrap().clone();
        assert!(register.apply(change).unwrap());
        *current = StoredAnnulments::Understood(register);
    }
}
