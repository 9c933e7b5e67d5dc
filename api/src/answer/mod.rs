//! One budget's answer, ready to be sent: what the totals say, given names and averages, as bytes with an ETag.
//!
//! Where totals come from is not known here, except for how much they can promise ([`Provenance`]).
//!
//! **The ETag** is `"<version>.r<revision>"`: the version says which submissions are counted, the revision is the
//! budget's, whose change alters names in the same numbers. `.withheld`, `.distribution` mark the other forms of the
//! same answer. A recount adds a digest of its body, because its positions do not determine its content.

mod body;
mod numbers;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use schemas::{
    AggregateVersion, BASIS_POINTS_PER_PERSON, Budget, CombinedTotals, Receipt, Results,
};
use sha2::{Digest, Sha256};

pub use numbers::percent;

/// How much totals can promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// They were committed together with their positions: they count exactly the records below them.
    Committed,
    /// They were counted from people's rows, which are written behind the commits and not in order: see
    /// [`crate::tiers::recount`].
    Recounted,
}

/// Why totals are no answer: they are damaged, or not for this definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another number of categories than the budget has.
    #[error("totals of {found} categories for a budget that has {wanted}")]
    Categories {
        /// What the totals have.
        found: usize,
        /// What the budget has.
        wanted: usize,
    },
    /// People, sums and distributions do not agree.
    #[error("the sums are not those of the people counted")]
    Sums,
    /// The body could not be written.
    #[error("the answer cannot be written as JSON")]
    Json,
}

/// Why numbers are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// They are shown once the budget has closed.
    AfterClose(Timestamp),
    /// Too few people so far.
    MinimumPeople,
}

/// Bytes and their ETag.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The JSON body.
    pub body: Bytes,
    /// The strong ETag, quoted.
    pub etag: HeaderValue,
}

/// One budget's answer.
#[derive(Debug)]
pub struct Answer {
    budget: Arc<Budget>,
    totals: Arc<CombinedTotals>,
    provenance: Provenance,
    withheld: Option<Withheld>,
    plain: Rendered,
    detailed: OnceLock<Rendered>,
}

impl Answer {
    /// Makes the answer as it is at `now`.
    ///
    /// # Errors
    /// When the totals cannot be an answer for this budget.
    pub fn new(
        budget: Arc<Budget>,
        totals: Arc<CombinedTotals>,
        provenance: Provenance,
        now: Timestamp,
    ) -> Result<Self, Unfit> {
        check(&budget, &totals)?;
        let withheld = withheld(&budget, totals.people, now);
        let plain = render(&budget, &totals, provenance, withheld, false)?;
        Ok(Self { budget, totals, provenance, withheld, plain, detailed: OnceLock::new() })
    }

    /// The definition that it was made with.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The totals that it shows.
    pub fn totals(&self) -> &Arc<CombinedTotals> {
        &self.totals
    }

    /// How much they can promise.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Whether it shows no results.
    pub fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Whether it must be made anew because its budget has closed meanwhile.
    pub fn is_outdated(&self, now: impl FnOnce() -> Timestamp) -> bool {
        matches!(self.withheld, Some(Withheld::AfterClose(until)) if now() >= until)
    }

    /// Whether it surely counts a receipt's submission. A recount can promise nothing.
    pub fn includes(&self, receipt: Receipt) -> bool {
        self.provenance == Provenance::Committed && self.totals.includes_receipt(receipt)
    }

    /// The answer without distributions.
    pub fn plain(&self) -> &Rendered {
        &self.plain
    }

    /// The answer with the distribution of each category; made when first asked for.
    pub fn with_distribution(&self) -> &Rendered {
        self.detailed.get_or_init(|| {
            render(&self.budget, &self.totals, self.provenance, self.withheld, true)
                // The plain form was written from the same values.
                .unwrap_or_else(|_| self.plain.clone())
        })
    }
}

/// The always-true rules, so that damage in a copy is never shown.
fn check(budget: &Budget, totals: &CombinedTotals) -> Result<(), Unfit> {
    let (found, wanted) = (totals.categories.len(), budget.categories.len());
    if found != wanted && found != 0 {
        return Err(Unfit::Categories { found, wanted });
    }
    let people = u128::from(totals.people);
    let sum: u128 = totals.categories.iter().map(|c| u128::from(c.basis_points)).sum();
    let everyone_once = totals.categories.iter().all(|category| {
        let counted: u128 = category.people_by_percent.iter().copied().map(u128::from).sum();
        counted == people
    });
    if sum != people * u128::from(BASIS_POINTS_PER_PERSON) || !everyone_once {
        return Err(Unfit::Sums);
    }
    Ok(())
}

/// Why numbers of so many people are not shown now, if they are not.
pub fn withheld(budget: &Budget, people: u64, now: Timestamp) -> Option<Withheld> {
    match (budget.results, budget.closes_at) {
        (Results::AfterClose, Some(until)) if now < until => Some(Withheld::AfterClose(until)),
        _ if people < budget.minimum_people && budget.minimum_people > 1 => {
            Some(Withheld::MinimumPeople)
        }
        _ => None,
    }
}

fn render(
    budget: &Budget,
    totals: &CombinedTotals,
    provenance: Provenance,
    withheld: Option<Withheld>,
    distribution: bool,
) -> Result<Rendered, Unfit> {
    let version = AggregateVersion::of(totals).to_string();
    let (body, form) = match withheld {
        Some(withheld @ Withheld::AfterClose(_)) => {
            (body::withheld(budget, &version, withheld), ".withheld-until-closed")
        }
        Some(withheld @ Withheld::MinimumPeople) => {
            (body::withheld(budget, &version, withheld), ".withheld-few-people")
        }
        None if distribution => (body::aggregate(budget, &version, totals, true), ".distribution"),
        None => (body::aggregate(budget, &version, totals, false), ""),
    };
    let body = body.map_err(|_| Unfit::Json)?;
    let content = match provenance {
        Provenance::Committed => String::new(),
        Provenance::Recounted => format!(".{}", digest(&body)),
    };
    let etag = format!("\"{version}.r{}{content}{form}\"", budget.revision);
    let etag = HeaderValue::try_from(etag).map_err(|_| Unfit::Json)?;
    Ok(Rendered { body: body.into(), etag })
}

/// 128 bits of SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
