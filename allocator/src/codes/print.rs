//! Prints personal codes, to be put on letters.

use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use identity::{CodeKey, MAX_SERIAL, Serial};
use runtime::config::ConfigArgs;
use storage::config::StorageConfig;

use super::{CodesError, budget_id, require_codes};

/// Codes between two lines of progress.
const PROGRESS_INTERVAL: u32 = 1_000_000;

/// The arguments of printing. Those that are required are missing beside a subcommand alone.
#[derive(Debug, Args)]
pub(super) struct PrintArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Budget that the codes are for
    #[arg(long, required = true)]
    budget: Option<String>,
    /// Number of codes
    #[arg(long, required = true, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
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

impl PrintArgs {
    /// Returns the arguments that name the configuration.
    pub fn config(&self) -> &ConfigArgs {
        &self.config
    }

    /// Prints the codes to standard output, and progress to standard error.
    ///
    /// # Errors
    /// When the budget has no codes, or the secret is another one than the data's.
    pub async fn run(&self, storage: &StorageConfig) -> Result<(), CodesError> {
        let budget = budget_id(self.budget.as_deref().unwrap_or_default())?;
        let count = self.count.unwrap_or_default();
        let last =
            self.first.checked_add(count.saturating_sub(1)).filter(|last| *last <= MAX_SERIAL);
        let last = last.ok_or(CodesError::TooMany)?;
        let person_secret = storage.person_secret()?;
        let control = storage.open_control_topic()?;
        require_codes(&control, &budget).await?;
        // Codes under another secret than the data's would be refused, once they are printed and sent.
        let log = storage.announced_log(control.active_log.as_ref());
        storage.record_secret(&control, &person_secret, &log).await?;
        let key = CodeKey::new(&person_secret, &budget);
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
    use schemas::{BudgetId, PersonSecret};

    use super::*;

    #[test]
    fn a_run_can_be_continued_and_every_code_is_its_serial_numbers() {
        let person_secret = PersonSecret::new(&[1; 32]).unwrap();
        let key = CodeKey::new(&person_secret, &BudgetId::parse("parks").unwrap());
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
