//! `allocator codes`: prints personal codes, to be put on letters.

use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use identity::{CodeKey, MAX_SERIAL, Serial};
use runtime::config::ConfigArgs;
use schemas::{BudgetId, IdentityRule};
use storage::config::StorageConfig;
use storage::control::{DefinitionError, record_secret};
use storage::open_error::OpenError;

/// Codes between two lines of progress.
const PROGRESS_INTERVAL: u32 = 1_000_000;

/// Print personal codes of a budget with the identity rule `code`
#[derive(Debug, Args)]
pub struct CodesArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Budget that the codes are for
    #[arg(long)]
    budget: String,
    /// Number of codes
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Serial number of the first code: to continue, one more than the last one printed
    #[arg(long, default_value_t = 1)]
    first: u32,
    /// Format of the output
    #[arg(long, value_enum, default_value_t = CodesFormat::Csv)]
    format: CodesFormat,
}

/// A format of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CodesFormat {
    /// A line `serial,code` for each, after a header
    Csv,
}

/// Why codes cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum CodesError {
    /// The budget's id is not a slug.
    #[error("`--budget` {0}")]
    BudgetId(String),
    /// There is no such budget.
    #[error("there is no budget `{0}`")]
    NoSuchBudget(BudgetId),
    /// The budget knows its persons otherwise, so that its codes would be worth nothing.
    #[error("the budget `{0}` has another identity rule than `code`")]
    OtherRule(BudgetId),
    /// The serial numbers do not suffice.
    #[error("serial numbers end at {MAX_SERIAL}: choose a lower `--first` or `--count`")]
    TooMany,
    /// The secret or the definitions cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The definitions cannot be read.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl CodesArgs {
    /// Returns the arguments that name the configuration.
    pub fn config(&self) -> &ConfigArgs {
        &self.config
    }

    /// Prints the codes to standard output, and progress to standard error.
    ///
    /// # Errors
    /// When the budget has no codes, or the secret is another one than the data's.
    pub async fn run(&self, storage: &StorageConfig) -> Result<(), CodesError> {
        let budget = BudgetId::parse(&self.budget)
            .map_err(|fault| CodesError::BudgetId(fault.to_string()))?;
        let last = self.first.checked_add(self.count - 1).filter(|last| *last <= MAX_SERIAL);
        let last = last.ok_or(CodesError::TooMany)?;
        let hasher = storage.hasher()?;
        let control = storage.open_control_topic()?;
        // Codes under another secret than the data's would be refused, once they are printed and sent.
        record_secret(control.secret.as_ref(), &hasher).await?;
        let catalog = control.definitions.confirmed().await?;
        match catalog.get(budget.as_str()) {
            Some(found) if found.identity == IdentityRule::Code => {}
            Some(_) => return Err(CodesError::OtherRule(budget)),
            None => return Err(CodesError::NoSuchBudget(budget)),
        }
        let key = CodeKey::new(&hasher, &budget);
        match self.format {
            CodesFormat::Csv => write_csv(&mut io::stdout().lock(), &key, self.first, last)?,
        }
        Ok(())
    }
}

fn write_csv(out: &mut impl Write, key: &CodeKey, first: u32, last: u32) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    writeln!(out, "serial,code")?;
    let mut since_progress = 0;
    for number in first..=last {
        let Some(serial) = Serial::new(number) else { break };
        writeln!(out, "{number},{}", key.code(serial))?;
        since_progress += 1;
        if since_progress == PROGRESS_INTERVAL {
            since_progress = 0;
            runtime::console::err(&format!("codes up to the serial number {number}\n"));
        }
    }
    out.flush()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::PersonKeyHasher;

    use super::*;

    #[test]
    fn a_run_can_be_continued_and_every_code_is_its_serial_numbers() {
        let hasher = PersonKeyHasher::new(&[1; 32]).unwrap();
        let key = CodeKey::new(&hasher, &BudgetId::parse("parks").unwrap());
        let lines = |first, last| {
            let mut out = Vec::new();
            write_csv(&mut out, &key, first, last).unwrap();
            let text = String::from_utf8(out).unwrap();
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let whole = lines(1, 50);
        assert_eq!([lines(1, 20), lines(21, 50)].concat(), whole);
        for (number, line) in (1..).zip(&whole) {
            let (serial, code) = line.split_once(',').unwrap();
            assert_eq!(serial, number.to_string());
            assert_eq!(key.verify(code), Serial::new(number));
        }
        assert_eq!(lines(MAX_SERIAL, MAX_SERIAL).len(), 1);
    }
}
