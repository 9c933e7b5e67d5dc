//! Many submissions in one body: a JSON array, or one a line. Each item has its own faults, with pointers into the
//! item.

use std::fmt;
use std::marker::PhantomData;

use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::Budget;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::whole;
use super::submission::{Draft, ReadDraft, submission};

/// The most items of one batch.
pub(crate) const MAX_ITEMS: usize = 1_000;

/// Faults of one batch that are told. With a hundred of each item an answer would be many times what was asked.
const MOST_FAULTS: usize = 1_000;

/// What the items of a batch say, in their order.
pub(crate) type Drafts = Vec<Result<Draft, Problem>>;

/// Reads a body that is a JSON array.
///
/// # Errors
/// When it is not JSON, or no array, or has more than 1,000 items: then no item counts.
pub(crate) fn json_array(body: &[u8], budget: &Budget) -> Result<Drafts, Problem> {
    if let Ok(drafts) = whole(body, ReadItems(ReadDraft(budget))) {
        return drafts.map(tell_not_all).ok_or_else(too_many);
    }
    // An item can hold what no number or text may be, and must spoil no other: each is read by itself.
    match whole(body, ReadItems(PhantomData::<&RawValue>)) {
        Ok(Some(items)) => {
            let drafts = items.into_iter().map(|item| submission(item.get().as_bytes(), budget));
            Ok(tell_not_all(drafts.collect()))
        }
        Ok(None) => Err(too_many()),
        Err(error) => {
            let mut faults = Faults::default();
            faults.malformed("", error.detail("an array"));
            Err(faults.into_problem(ProblemKind::InvalidAllocation))
        }
    }
}

/// Reads a body that is one item a line. Blank lines are no items; a line that is not JSON spoils no other.
///
/// # Errors
/// When it has more than 1,000 items: then no item counts.
pub(crate) fn lines(body: &[u8], budget: &Budget) -> Result<Drafts, Problem> {
    let mut items = body
        .split(|byte| *byte == b'\n')
        .filter(|line| line.iter().any(|byte| !byte.is_ascii_whitespace()));
    let drafts = items.by_ref().take(MAX_ITEMS).map(|line| submission(line, budget)).collect();
    if items.next().is_some() { Err(too_many()) } else { Ok(tell_not_all(drafts)) }
}

/// Leaves the lists of faults out once there are enough of them; every item still has its own problem.
fn tell_not_all(drafts: Drafts) -> Drafts {
    let mut left = Some(MOST_FAULTS);
    let mut told = |problem: Problem| {
        let faults = problem.noted_faults().len();
        left = left.and_then(|left| left.checked_sub(faults));
        if left.is_some() || faults == 0 {
            return problem;
        }
        Problem::new(problem.kind()).detail(format!(
            "{faults} faults, which are not listed: of one batch at most {MOST_FAULTS} are"
        ))
    };
    drafts.into_iter().map(|draft| draft.map_err(&mut told)).collect()
}

fn too_many() -> Problem {
    Problem::new(ProblemKind::ContentTooLarge)
        .detail(format!("a batch may have at most {MAX_ITEMS} items; nothing was accepted"))
}

/// Reads an array of items, each by the same seed; `None` for too many of them.
struct ReadItems<S>(S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for ReadItems<S> {
    type Value = Option<Vec<S::Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for ReadItems<S> {
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
