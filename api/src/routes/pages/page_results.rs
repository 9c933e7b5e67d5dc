//! An aggregate as a page shows it.

use std::sync::Arc;

use jiff::Timestamp;
use page::history::History;
use page::view::{self, CategoryResult, Results, ShownResults};
use schemas::{Budget, HistoryStep, Openness, median_tenths};

use super::page_history;
use super::rendered::{PageKind, ResultsBasis};
use crate::answer::{Answer, Withheld, withheld};
use crate::routes::ApiState;

/// Minutes after the last instant of final results from which their history does not change.
const SETTLING_MINUTES: u64 = 2;

/// The results of a budget at one moment.
pub(super) enum PageResults {
    NotYet,
    Unavailable,
    Withheld(view::Withheld),
    Shown(Arc<Answer>),
}

impl PageResults {
    /// Reads the results of a budget. A page is shown without them if they cannot be read.
    pub async fn read(api: &ApiState, budget: &Budget, now: Timestamp) -> Self {
        if matches!(budget.openness(now), Openness::NotYet(_)) {
            return Self::NotYet;
        }
        let Some(entry) = api.aggregates.entry(budget.id.as_str()) else {
            return Self::Unavailable;
        };
        let reading = match api.aggregates.read_memory(&entry) {
            Some(reading) => reading,
            None => match api.aggregates.read(&entry).await {
                Ok(reading) => reading,
                Err(_) => return Self::Unavailable,
            },
        };
        let answer = reading.aged.answer;
        // The answer may be of an earlier definition, which withheld less.
        let totals = answer.totals();
        let now_withheld = || withheld(budget, totals.people, totals.is_final(), now);
        match answer.withheld().or_else(now_withheld) {
            Some(withheld) => Self::Withheld(of_answer(withheld)),
            None => Self::Shown(answer),
        }
    }

    /// What a page with these results depends on.
    pub fn basis(&self) -> ResultsBasis {
        match self {
            Self::NotYet => ResultsBasis::NotYet,
            Self::Unavailable => ResultsBasis::Unavailable,
            Self::Withheld(withheld) => ResultsBasis::Withheld(*withheld),
            Self::Shown(answer) => ResultsBasis::Shown(answer.plain().etag.clone()),
        }
    }

    /// Reads the history that belongs to the results; empty unless they are shown. `None` if it cannot be read.
    pub async fn history(&self, api: &ApiState, budget: &Budget) -> Option<History> {
        match self {
            Self::Shown(answer) => page_history::read(api, budget, answer).await,
            Self::NotYet | Self::Unavailable | Self::Withheld(_) => Some(History::default()),
        }
    }

    /// The minute of which a page shows the history: the history goes on while no number changes. That of final results
    /// ends once the last instant is served, which of days is the end of the day.
    pub fn history_minute(&self, kind: PageKind, now: Timestamp) -> Option<i64> {
        let (Self::Shown(answer), PageKind::Results) = (self, kind) else { return None };
        let (minute, totals) = (now.as_second() / 60, answer.totals());
        if !totals.is_final() {
            return Some(minute);
        }
        let last_ms = HistoryStep::Day.next_instant(totals.updated_at_ms).at_ms(HistoryStep::Day);
        let settled = last_ms / 60_000 + SETTLING_MINUTES;
        Some(i64::try_from(settled).map_or(minute, |settled| minute.min(settled)))
    }

    /// Converts the results for the page.
    pub fn view(&self) -> Results {
        match self {
            Self::NotYet => Results::NotYet,
            Self::Unavailable => Results::Unavailable,
            Self::Withheld(withheld) => Results::Withheld(*withheld),
            Self::Shown(answer) => Results::Shown(shown(answer)),
        }
    }
}

fn of_answer(withheld: Withheld) -> view::Withheld {
    match withheld {
        Withheld::AfterClose(until) => view::Withheld::AfterClose(until),
        Withheld::Counting(_) => view::Withheld::Counting,
        Withheld::MinimumPeople => view::Withheld::MinimumPeople,
        Withheld::UnknownRule => view::Withheld::UnknownRule,
    }
}

fn shown(answer: &Answer) -> ShownResults {
    let totals = answer.totals();
    let updated_at = i64::try_from(totals.updated_at_ms).ok().filter(|ms| *ms > 0);
    let categories = totals.categories.iter().map(|category| CategoryResult {
        total_basis_points: category.basis_points,
        median_tenths: median_tenths(&category.people_by_percent),
    });
    ShownResults {
        people: totals.people,
        is_final: totals.is_final(),
        annulled: totals.annulled,
        updated_at: updated_at.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        categories: categories.collect(),
        json: String::from_utf8_lossy(&answer.plain().body).into_owned(),
    }
}
