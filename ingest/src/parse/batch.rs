//! Parses a batch of submissions: a JSON array or NDJSON. Each item has its own faults, with pointers into the item.

use std::fmt;
use std::marker::PhantomData;

use runtime::http::without_byte_order_mark;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::Budget;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::parse_whole;
use super::submission::{ParsedSubmission, SubmissionSeed, submission};

/// Maximum number of items in one batch.
pub(crate) const MAX_ITEMS: usize = 1_000;

/// Maximum number of faults listed in one batch response. A hundred per item would make the response far larger than
/// the request.
const MAX_LISTED_FAULTS: usize = 1_000;

/// The items of a batch in order, each valid or with its own problem.
pub(crate) type ParsedBatch = Vec<Result<ParsedSubmission, Problem>>;

/// Parses a body that is a JSON array.
///
/// # Errors
/// When the body is not a JSON array or has more than [`MAX_ITEMS`] items. No item is accepted then.
pub(crate) fn json_array(body: &[u8], budget: &Budget) -> Result<ParsedBatch, Problem> {
    if let Ok(batch) = parse_whole(body, ItemsSeed(SubmissionSeed::naming_the_person(budget))) {
        return batch.map(limit_listed_faults).ok_or_else(too_many_items);
    }
    // One item may hold an invalid number or string. Parsing each item separately keeps the others valid.
    match parse_whole(body, ItemsSeed(PhantomData::<&RawValue>)) {
        Ok(Some(items)) => {
            let batch = items.into_iter().map(|item| submission(item.get().as_bytes(), budget));
            Ok(limit_listed_faults(batch.collect()))
        }
        Ok(None) => Err(too_many_items()),
        Err(error) => {
            let mut faults = Faults::default();
            faults.malformed("", error.detail("an array"));
            Err(faults.into_problem(ProblemKind::InvalidAllocation))
        }
    }
}

/// Parses a body with one item per line, which may begin with a byte order mark. Blank lines are skipped; an invalid line
/// affects no other.
///
/// # Errors
/// When the body has more than [`MAX_ITEMS`] items. No item is accepted then.
pub(crate) fn ndjson(body: &[u8], budget: &Budget) -> Result<ParsedBatch, Problem> {
    let mut items = without_byte_order_mark(body)
        .split(|byte| *byte == b'\n')
        .filter(|line| line.iter().any(|byte| !byte.is_ascii_whitespace()));
    let batch = items.by_ref().take(MAX_ITEMS).map(|line| submission(line, budget)).collect();
    if items.next().is_some() { Err(too_many_items()) } else { Ok(limit_listed_faults(batch)) }
}

/// Omits the lists of faults beyond [`MAX_LISTED_FAULTS`]. Every invalid item still has its own problem.
fn limit_listed_faults(batch: ParsedBatch) -> ParsedBatch {
    let mut left = Some(MAX_LISTED_FAULTS);
    let mut limit = |problem: Problem| {
        let faults = problem.recorded_faults().len();
        left = left.and_then(|left| left.checked_sub(faults));
        if left.is_some() || faults == 0 {
            return problem;
        }
        Problem::new(problem.kind()).detail(format!(
            "{faults} faults, not listed: a batch response lists at most {MAX_LISTED_FAULTS}"
        ))
    };
    batch.into_iter().map(|item| item.map_err(&mut limit)).collect()
}

fn too_many_items() -> Problem {
    Problem::new(ProblemKind::ContentTooLarge)
        .detail(format!("a batch may have at most {MAX_ITEMS} items; nothing was accepted"))
}

/// Deserializes an array of items with the same seed. `None` when there are more than [`MAX_ITEMS`].
struct ItemsSeed<S>(S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for ItemsSeed<S> {
    type Value = Option<Vec<S::Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for ItemsSeed<S> {
    type Value = Option<Vec<S::Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::with_capacity(64);
        while let Some(item) = seq.next_element_seed(self.0)? {
            items.push(item);
            if items.len() == MAX_ITEMS {
                let more = seq.next_element::<IgnoredAny>()?.is_some();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok((!more).then_some(items));
            }
        }
        Ok(Some(items))
    }
}
