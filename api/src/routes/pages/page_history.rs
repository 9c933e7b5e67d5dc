//! A budget's history as a page shows it.

use jiff::Timestamp;
use page::history::{History, HistoryPoint};
use runtime::clock::now_ms;
use schemas::{Budget, HistoryInstant, HistoryStep, InstantTotals, average_ten_thousandths};

use crate::answer::Answer;
use crate::history::{HistorySection, MAX_INSTANTS, SETTLING_DELAY};
use crate::no_answer::NoAnswer;
use crate::routes::ApiState;
use crate::routes::history::{shown_points, step_of_span};

/// Instants of the hourly history: a week.
const WEEK_HOURS: u32 = 7 * 24;
/// Instants of the history of the first two hours, by the minute.
const TWO_HOURS_MINUTES: u32 = 2 * 60 + 1;

/// Reads the history of shown results, in the step that suits its length. `None` if it cannot be read.
pub(super) async fn read(api: &ApiState, budget: &Budget, answer: &Answer) -> Option<History> {
    read_points(api, budget, answer).await.ok().map(History::new)
}

async fn read_points(
    api: &ApiState,
    budget: &Budget,
    answer: &Answer,
) -> Result<Vec<HistoryPoint>, NoAnswer> {
    let newest_ms = now_ms().saturating_sub(SETTLING_DELAY.as_millis() as u64);
    let totals = answer.totals();
    // Final results end with the last change, not now.
    let end_ms = |step: HistoryStep| match totals.is_final() {
        true => step.next_instant(totals.updated_at_ms).at_ms(step).min(newest_ms),
        false => newest_ms,
    };
    let max_instants = api.histories.max_instants().await;
    let read = async |step: HistoryStep, instants: u32| {
        let instants = instants.min(max_instants);
        let end = step.next_instant(end_ms(step));
        let first = HistoryInstant(end.0.saturating_sub(instants)).max(step.oldest_kept(now_ms()));
        let section = HistorySection { budget: budget.id.clone(), step, instants: first..end };
        let points = api.read_history(budget, &section).await?;
        let shown = shown_points(budget, &points);
        Ok::<_, NoAnswer>(shown.into_iter().filter_map(|point| to_view(step, point)).collect())
    };
    let hours: Vec<HistoryPoint> = read(HistoryStep::Hour, WEEK_HOURS).await?;
    // The week is full: the history is longer.
    if hours.len() >= WEEK_HOURS.min(max_instants) as usize {
        return read(HistoryStep::Day, MAX_INSTANTS).await;
    }
    let since_ms = hours.first().and_then(|point| u64::try_from(point.at.as_millisecond()).ok());
    let span_ms = since_ms.map_or(0, |since_ms| end_ms(HistoryStep::Hour).saturating_sub(since_ms));
    match step_of_span(span_ms) {
        HistoryStep::Minute => read(HistoryStep::Minute, TWO_HOURS_MINUTES).await,
        HistoryStep::Hour | HistoryStep::Day => Ok(hours),
    }
}

fn to_view(step: HistoryStep, point: &InstantTotals) -> Option<HistoryPoint> {
    let ms = i64::try_from(point.instant.at_ms(step)).ok()?;
    let people = point.totals.people;
    let average = |sum: &u64| average_ten_thousandths(*sum, people);
    Some(HistoryPoint {
        at: Timestamp::from_millisecond(ms).ok()?,
        people,
        averages: point.totals.basis_points.iter().map(average).collect(),
    })
}
