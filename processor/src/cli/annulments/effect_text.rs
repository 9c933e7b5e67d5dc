//! What an annulment or a restoration changes, as a table.

use std::fmt::Write as _;

use schemas::{AnnulmentAction, AnnulmentEffect, Budget};

/// Formats numbers of people, and the results before and after.
pub(super) fn effect_text(
    effect: &AnnulmentEffect,
    action: AnnulmentAction,
    budget: &Budget,
) -> String {
    let AnnulmentEffect { selected, unknown, unchanged, without_ballot, changed, before, after } =
        effect;
    let (changes, so_already) = match action {
        AnnulmentAction::Annul => ("count, and will not", "annulled already"),
        AnnulmentAction::Restore => ("will count again", "not annulled"),
    };
    let mut text = String::new();
    for (people, what) in [
        (selected, "people selected"),
        (changed, changes),
        (without_ballot, "without an allocation"),
        (unchanged, so_already),
        (unknown, "unknown in this budget"),
    ] {
        let _ = writeln!(text, "{people:>12}  {what}");
    }
    let _ = writeln!(text, "{:>12}{:>12}", "before", "after");
    let _ = writeln!(text, "{:>12}{:>12}  people", before.people, after.people);
    for (index, category) in budget.categories.iter().enumerate() {
        let [before, after] =
            [before, after].map(|results| percent(results.averages.get(index).copied()));
        let _ = writeln!(text, "{before:>12}{after:>12}  {}", category.id);
    }
    text
}

/// Formats hundredths of a percent; an average without people is none.
fn percent(hundredths: Option<u64>) -> String {
    match hundredths {
        Some(hundredths) => format!("{}.{:02} %", hundredths / 100, hundredths % 100),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::ResultsSummary;

    use super::*;

    #[test]
    fn every_number_is_in_the_table_and_results_without_people_are_a_hyphen() {
        let mut budget = schemas::default_budgets().unwrap().remove(0);
        budget.categories.truncate(2);
        let effect = AnnulmentEffect {
            selected: 20,
            unknown: 1,
            unchanged: 2,
            without_ballot: 3,
            changed: 14,
            before: ResultsSummary { people: 14, averages: vec![3_305, 6_695] },
            after: ResultsSummary::default(),
        };
        let text = effect_text(&effect, AnnulmentAction::Annul, &budget);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        let [first, second] = [0, 1].map(|index| budget.categories[index].id.to_string());
        assert_eq!(
            lines,
            [
                "20 people selected",
                "14 count, and will not",
                "3 without an allocation",
                "2 annulled already",
                "1 unknown in this budget",
                "before after",
                "14 0 people",
                &format!("33.05 % - {first}"),
                &format!("66.95 % - {second}"),
            ]
        );
    }
}
