//! A naive fold: each person's latest submission wins, unless its id is among the person's latest three, and does not
//! count while the person is annulled.

use std::collections::BTreeMap;

use schemas::{
    AnnulmentAction, PersonKey, RecordDecoder, RecordKind, SubmissionFingerprint, bucket_of,
};

#[derive(Default)]
struct Person {
    shares: Vec<u16>,
    ids: Vec<SubmissionFingerprint>,
    annulled: bool,
}

/// Returns everyone's shares in a budget, in the order of an export: by bucket, then by key.
pub fn people<'r>(
    records: impl Iterator<Item = (&'r [u8], &'r [u8])>,
    budget: &str,
) -> Vec<Vec<u16>> {
    let mut people: BTreeMap<(u8, PersonKey), Person> = BTreeMap::new();
    for (key, value) in records {
        let mut decoder = RecordDecoder::default();
        let Ok(view) = decoder.decode(key, value) else { continue };
        if view.budget != budget {
            continue;
        }
        let person = people.entry((bucket_of(&view.person), view.person)).or_default();
        if let RecordKind::Annulment(action) = view.kind {
            // Nobody who has not submitted can be annulled.
            person.annulled = action == AnnulmentAction::Annul && !person.ids.is_empty();
        } else if !person.ids.contains(&view.submission) {
            person.shares = view.basis_points.iter().map(|share| *share as u16).collect();
            person.ids.insert(0, view.submission);
            person.ids.truncate(3);
        }
    }
    let counting = people.into_values().filter(|person| !person.annulled);
    counting.map(|person| person.shares).filter(|shares| !shares.is_empty()).collect()
}

/// Formats these people's shares as an exported CSV file.
pub fn csv(categories: &[&str], people: &[Vec<u16>]) -> String {
    let mut text = categories.join(",") + "\n";
    for shares in people {
        let percents = shares.iter().map(|share| format!("{:.2}", f64::from(*share) / 100.0));
        text.push_str(&(percents.collect::<Vec<_>>().join(",") + "\n"));
    }
    text
}
