//! Times in the budget's zone: the server does not know where the reader is. The page's script shows them in the
//! reader's zone.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use maud::{Markup, html};

use crate::texts::Texts;

/// Renders a time to the minute.
pub(super) fn time(at: Timestamp, zone: &TimeZone, texts: &Texts) -> Markup {
    time_with(at, zone, texts, None)
}

/// Renders a time with an id, by which the page's script finds it.
pub(super) fn time_with(at: Timestamp, zone: &TimeZone, texts: &Texts, id: Option<&str>) -> Markup {
    let civil = at.to_zoned(zone.clone());
    let month = usize::try_from(civil.month()).unwrap_or_default().saturating_sub(1);
    let month = texts.text("months").split('|').nth(month).unwrap_or_default();
    let text = texts.format(
        "time",
        &[
            ("day", &civil.day().to_string()),
            ("month", month),
            ("year", &civil.year().to_string()),
            ("time", &format!("{:02}:{:02}", civil.hour(), civil.minute())),
            ("zone", &zone_name(&civil)),
        ],
    );
    html! { time id=[id] datetime=(format!("{at:.3}")) { (text) } }
}

/// Returns the zone's abbreviation, such as `CET`, or its offset where it has none.
fn zone_name(time: &Zoned) -> String {
    let abbreviation = time.strftime("%Z").to_string();
    match abbreviation.starts_with(|first: char| first.is_ascii_alphabetic()) {
        true => abbreviation,
        false => format!("UTC{}", time.strftime("%:z")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::language::Language;

    #[test]
    fn times_are_in_the_budgets_zone_and_name_it() {
        let shown = |zone: &str, language| {
            let at = "2027-07-01T22:30:00Z".parse().unwrap();
            time(at, &schemas::time_zone(zone).unwrap(), Texts::of(language)).0
        };
        let datetime = "<time datetime=\"2027-07-01T22:30:00.000Z\">";
        for (zone, text) in [
            ("UTC", "1 July 2027, 22:30 UTC"),
            ("Europe/Berlin", "2 July 2027, 00:30 CEST"),
            ("America/Sao_Paulo", "1 July 2027, 19:30 UTC-03:00"),
            ("Asia/Kathmandu", "2 July 2027, 04:15 UTC+05:45"),
        ] {
            assert_eq!(shown(zone, Language::En), format!("{datetime}{text}</time>"));
        }
        assert!(shown("Europe/Berlin", Language::De).contains("2. Juli 2027, 00:30 Uhr CEST"));
    }
}
