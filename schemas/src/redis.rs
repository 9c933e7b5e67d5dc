//! The Redis keys, and the scripts that update them.
//!
//! The braces in a key are the cluster's hash tag: all keys of a budget are on one node, so that one script can update
//! them atomically. The keys of the copies for other programs have no braces, and may be on another node.

use std::fmt;

use serde::Deserialize;

use crate::message_pack::{push_array_header, push_integer};
use crate::{
    BudgetId, BudgetTotals, CODE_LIFETIME, CategoryTotals, CombinedTotals, DEFAULT_BUDGET,
    DISTRIBUTION_BINS, Generation, KeyedHash, LogNumber, MAIL_LIMITS, MAX_CODE_TRIES,
    MAX_CODE_TRIES_OF_CLIENT, PartitionCount, PartitionId, PartitionTotals, PersonKey, Position,
    SubmissionId, Term,
};

/// The script that publishes totals; documented in its header.
pub const PUBLISH_SCRIPT: &str = include_str!("../lua/publish.lua");

/// The script that charges rate limits; documented in its header.
pub const LIMITS_SCRIPT: &str = include_str!("../lua/limits.lua");

/// The script that stores a one-time code; documented in its header.
pub const ISSUE_CODE_SCRIPT: &str = include_str!("../lua/issue_code.lua");

/// The script that tries a one-time code; documented in its header.
pub const REDEEM_CODE_SCRIPT: &str = include_str!("../lua/redeem_code.lua");

/// The channel on which a budget's id is published whenever its aggregate has changed.
pub const UPDATES_CHANNEL: &str = "aggregate_updates";

/// Key of the hash of each partition's last published totals.
pub fn partitions_key(budget: &BudgetId) -> String {
    format!("aggregate_partitions:{{{budget}}}")
}

/// Key of the sum over all partitions, as JSON.
pub fn aggregate_key(budget: &BudgetId) -> String {
    format!("aggregate_allocations_v2:{{{budget}}}")
}

/// Key of the number of people in the aggregate.
pub fn people_key(budget: &BudgetId) -> String {
    format!("aggregate_total_submissions:{{{budget}}}")
}

/// Key of a copy of the default budget's aggregate, for other programs. Written, never read.
pub const AGGREGATE_COPY_KEY: &str = "aggregate_allocations_v2";

/// Key of a copy of the default budget's number of people, for other programs. Written, never read.
pub const PEOPLE_COPY_KEY: &str = "aggregate_total_submissions";

/// Returns the script's keys for one budget.
pub fn publish_keys(budget: &BudgetId) -> Vec<String> {
    let mut keys = vec![partitions_key(budget), aggregate_key(budget), people_key(budget)];
    if budget.as_str() == DEFAULT_BUDGET {
        keys.extend([AGGREGATE_COPY_KEY.to_owned(), PEOPLE_COPY_KEY.to_owned()]);
    }
    keys
}

/// Key of the receipt of a person's submission id, which ingest returns for duplicates.
pub fn idempotency_key(budget: &BudgetId, person: &PersonKey, submission: SubmissionId) -> String {
    let person = u128::from_be_bytes(*person.as_bytes());
    format!("idempotency:{{{budget}}}:{submission}:{person:032x}")
}

/// Key of the time since which every accepted submission id is stored, in milliseconds since 1970; 0: since the first.
pub const IDS_COMPLETE_SINCE_KEY: &str = "idempotency:complete_since";

/// Key of a submission id's receipt in releases whose ids are the same for all persons. Read, never written.
pub fn former_idempotency_key(budget: &BudgetId, submission: SubmissionId) -> String {
    format!("idempotency:{{{budget}}}:{submission}")
}

/// Key of a counter of a rate limit. One hash tag for all, so that one script can charge several. Algorithm and window
/// are part of the key, so that a changed limit never reads a state that means something else.
pub fn limit_key(
    limit: &str,
    algorithm: &str,
    window_ms: u64,
    subject: &dyn fmt::Display,
) -> String {
    format!("{{limits}}:{limit}:{algorithm}:{window_ms}:{subject}")
}

/// Key of the one-time code of a budget and an address. One hash tag for all, as the script uses the mailbox's key too.
pub fn one_time_code_key(slot: &KeyedHash) -> String {
    format!("{{one_time_codes}}:code:{}", slot.to_hex())
}

/// Key of the times of a mailbox's last mails.
pub fn mailbox_key(mailbox: &KeyedHash) -> String {
    format!("{{one_time_codes}}:mailbox:{}", mailbox.to_hex())
}

/// Builds the arguments of [`ISSUE_CODE_SCRIPT`] for the keyed hash of a code.
pub fn issue_code_arguments(code: &KeyedHash) -> Vec<String> {
    let ms = |duration: std::time::Duration| duration.as_millis().to_string();
    let mut arguments = vec![code.to_hex(), ms(CODE_LIFETIME), MAX_CODE_TRIES.to_string()];
    for limit in MAIL_LIMITS {
        arguments.extend([limit.mails.to_string(), ms(limit.window)]);
    }
    arguments
}

/// Builds the arguments of [`REDEEM_CODE_SCRIPT`] for the keyed hashes of a code and of the client, if it is known.
pub fn redeem_code_arguments(code: &KeyedHash, client: Option<&KeyedHash>) -> [String; 3] {
    let client = client.map(|client| client.to_hex()).unwrap_or_default();
    [code.to_hex(), client, MAX_CODE_TRIES_OF_CLIENT.to_string()]
}

/// Builds the script's arguments that publish one budget's committed totals in some partitions.
pub fn publish_arguments(
    budget: &BudgetId,
    term: Term,
    count: PartitionCount,
    partitions: &[PartitionTotals],
) -> Vec<Vec<u8>> {
    let parts = partitions
        .iter()
        .map(|part| (part.partition, part.totals.position, pack_totals(term, &part.totals)));
    script_arguments(budget, term, count, parts)
}

/// Builds the script's arguments that compare one budget's positions in some partitions, and publish nothing.
pub fn compare_arguments(
    budget: &BudgetId,
    term: Term,
    count: PartitionCount,
    positions: &[(PartitionId, Position)],
) -> Vec<Vec<u8>> {
    let parts = positions.iter().map(|(partition, position)| (*partition, *position, Vec::new()));
    script_arguments(budget, term, count, parts)
}

fn script_arguments(
    budget: &BudgetId,
    term: Term,
    count: PartitionCount,
    parts: impl Iterator<Item = (PartitionId, Position, Vec<u8>)>,
) -> Vec<Vec<u8>> {
    let decimal = |number: u32| number.to_string().into_bytes();
    let mut arguments = vec![
        UPDATES_CHANNEL.into(),
        budget.as_str().into(),
        decimal(term.number),
        decimal(term.generation.0),
        decimal(term.log.0),
        decimal(count.get()),
    ];
    for (partition, position, packed) in parts {
        arguments.extend([decimal(partition.0), position.0.to_string().into_bytes(), packed]);
    }
    arguments
}

/// Encodes what the hash of partitions holds: the array {term, position, people, `updated_at_ms`, numbers}, and behind
/// it the integer 1 if the budget is closed in the partition, and the number of annulled people. What is 0 to the end
/// is left out. The scripts of earlier releases read the array only, or the first integer too.
///
/// In MessagePack, whose numbers the script decodes several times faster than decimals; byte for byte as `cmsgpack`
/// encodes them in the script of the previous release, which reads and replaces them during a rolling update.
fn pack_totals(term: Term, totals: &BudgetTotals) -> Vec<u8> {
    let numbers = totals.categories.len() * (DISTRIBUTION_BINS + 1);
    let mut bytes = Vec::with_capacity(64 + 3 * numbers);
    push_array_header(&mut bytes, 5);
    for number in [term.number.into(), totals.position.0, totals.people, totals.updated_at_ms] {
        push_integer(&mut bytes, number);
    }
    push_array_header(&mut bytes, numbers as u32);
    for category in &totals.categories {
        push_integer(&mut bytes, category.basis_points);
        for people in &*category.people_by_percent {
            push_integer(&mut bytes, *people);
        }
    }
    let is_closed = totals.closing.is_closed();
    if is_closed || totals.annulled > 0 {
        push_integer(&mut bytes, is_closed.into());
    }
    if totals.annulled > 0 {
        push_integer(&mut bytes, totals.annulled);
    }
    bytes
}

/// Parses the aggregate's JSON; `None` if it is damaged, which readers treat as a cache miss.
pub fn parse_aggregate(json: &[u8]) -> Option<CombinedTotals> {
    #[derive(Deserialize)]
    struct Aggregate {
        term: u32,
        generation: Generation,
        log: LogNumber,
        people: u64,
        updated_at_ms: u64,
        positions: Vec<Position>,
        /// Absent from an aggregate of an earlier release.
        #[serde(default)]
        closed_partitions: u32,
        /// Absent likewise.
        #[serde(default)]
        annulled: u64,
        categories: Vec<Category>,
    }
    #[derive(Deserialize)]
    struct Category {
        basis_points: u64,
        people_by_percent: Vec<u64>,
    }

    let aggregate: Aggregate = serde_json::from_slice(json).ok()?;
    let categories = aggregate
        .categories
        .into_iter()
        .map(|category| {
            let people_by_percent = category.people_by_percent.try_into().ok()?;
            Some(CategoryTotals { basis_points: category.basis_points, people_by_percent })
        })
        .collect::<Option<_>>()?;
    Some(CombinedTotals {
        term: Term { number: aggregate.term, generation: aggregate.generation, log: aggregate.log },
        positions: aggregate.positions,
        people: aggregate.people,
        updated_at_ms: aggregate.updated_at_ms,
        categories,
        closed_partitions: aggregate.closed_partitions,
        annulled: aggregate.annulled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_budget_is_copied_to_the_plain_keys() -> Result<(), crate::SlugFault> {
        let (default, other) = (BudgetId::parse(DEFAULT_BUDGET)?, BudgetId::parse("town")?);
        assert_eq!(
            publish_keys(&default),
            [
                "aggregate_partitions:{taxes}",
                "aggregate_allocations_v2:{taxes}",
                "aggregate_total_submissions:{taxes}",
                "aggregate_allocations_v2",
                "aggregate_total_submissions",
            ]
        );
        assert_eq!(publish_keys(&other).len(), 3);
        Ok(())
    }
}
