//! Revokes personal codes.

use std::path::PathBuf;

use clap::Args;
use identity::CodeKey;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{BudgetId, SerialSet};
use storage::config::StorageConfig;
use storage::control::CodeRevocations;

use super::serials;
use super::{CodesError, budget_id, require_codes};

/// Maximum number of ranges that are revoked in one step.
const STEP_RANGES: usize = 4_096;

/// Revoke personal codes, and end their sessions
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("serials").required(true).multiple(true)))]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Budget that the codes are for
    #[arg(long)]
    budget: String,
    /// Serial numbers and ranges, such as 7,12-30
    #[arg(long, group = "serials")]
    serial: Option<String>,
    /// File with a serial number, a range, or a printed `serial,code` in each line
    #[arg(long, value_name = "FILE", group = "serials")]
    file: Option<PathBuf>,
}

impl RevokeArgs {
    /// Returns the arguments that name the configuration.
    pub fn config(&self) -> &ConfigArgs {
        &self.config
    }

    /// Revokes the codes. Writes progress to standard error, and the numbers of codes to standard output.
    ///
    /// # Errors
    /// When the serial numbers are invalid, the budget has no codes, or the control topic cannot be used.
    pub async fn run(&self, storage: &StorageConfig) -> Result<(), CodesError> {
        let budget = budget_id(&self.budget)?;
        let person_secret = storage.person_secret()?;
        let key = CodeKey::new(&person_secret, &budget);
        let serials = serials::read(self.serial.as_deref(), self.file.as_deref(), &key)?;
        let control = storage.open_control_topic()?;
        require_codes(&control, &budget).await?;
        let log = storage.announced_log(control.active_log.as_ref());
        storage.record_secret(&control, &person_secret, &log).await?;
        let before = control.revocations.revoke(&budget, &SerialSet::default()).await?;
        let after = revoke_in_steps(control.revocations.as_ref(), &budget, &serials).await?;
        let (total, more) = (after.count(), after.count().saturating_sub(before.count()));
        console::out(&format!("revoked {more} codes; {total} codes of `{budget}` are revoked\n"));
        Ok(())
    }
}

async fn revoke_in_steps(
    revocations: &dyn CodeRevocations,
    budget: &BudgetId,
    serials: &SerialSet,
) -> Result<SerialSet, CodesError> {
    let mut revoked = SerialSet::default();
    let (mut done, of) = (0, serials.ranges().len());
    for step in serials.ranges().chunks(STEP_RANGES) {
        revoked = revocations.revoke(budget, &step.iter().cloned().collect()).await?;
        done += step.len();
        if of > STEP_RANGES {
            console::err(&format!("revoked {done} of {of} ranges of serial numbers\n"));
        }
    }
    Ok(revoked)
}
