//! The comparison of the aggregate with what was sent.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::LoadError;
use super::client::{Aggregate, LoadClient};

/// How long the aggregate may take to contain everything that was accepted.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The result of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    expected: Aggregate,
    found: Aggregate,
    rejected: u64,
}

impl Verdict {
    /// Whether the aggregate is exactly what was sent, and nothing was rejected.
    pub fn is_exact(&self) -> bool {
        self.expected == self.found && self.rejected == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.expected == self.found {
            let people = self.found.people;
            write!(
                f,
                "exact: the aggregate is what was sent, to the basis point ({people} people)"
            )?;
        } else {
            write!(
                f,
                "NOT exact: {} people expected, {} found",
                self.expected.people, self.found.people
            )?;
            for (expected, found) in self.expected.categories.iter().zip(&self.found.categories) {
                if expected != found {
                    let (id, sum) = (&expected.id, expected.total_basis_points);
                    write!(f, "; {id}: {sum} expected, {} found", found.total_basis_points)?;
                }
            }
            write!(f, " (does somebody else submit to this budget?)")?;
        }
        if self.rejected > 0 {
            write!(f, "; {} submissions were rejected", self.rejected)?;
        }
        Ok(())
    }
}

/// The aggregate before the load, with what the load's people have counted.
pub(super) fn expected(before: &Aggregate, (people, sums): (u64, Vec<u64>)) -> Aggregate {
    let mut expected = before.clone();
    expected.people += people;
    for (category, sum) in expected.categories.iter_mut().zip(sums) {
        category.total_basis_points += sum;
    }
    expected
}

/// Waits until the aggregate is as expected, or for the longest time that may take.
///
/// # Errors
/// When the aggregate cannot be read.
pub(super) async fn compare(
    client: &LoadClient,
    expected: &Aggregate,
    rejected: u64,
) -> Result<Verdict, LoadError> {
    let deadline = Instant::now() + VISIBLE_TIMEOUT;
    loop {
        let found = client.aggregate().await;
        if found.as_ref().is_ok_and(|found| found == expected) || Instant::now() > deadline {
            return Ok(Verdict { expected: expected.clone(), found: found?, rejected });
        }
        sleep(POLL_INTERVAL).await;
    }
}
