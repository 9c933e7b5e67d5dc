//! Times, in UTC: the server does not know where the reader is. The page's script shows them in the reader's zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use crate::texts::Texts;

/// Renders a time to the minute.
pub(super) fn time(at: Timestamp, texts: &Texts) -> Markup {
    time_with(at, texts, None)
}

/// Renders a time with an id, by which the page's script finds it.
pub(super) fn time_with(at: Timestamp, texts: &Texts, id: Option<&str>) -> Markup {
    let civil = at.to_zoned(TimeZone::UTC);
    let month = usize::try_from(civil.month()).unwrap_or_default().saturating_sub(1);
    let month = texts.text("months").split('|').nth(month).unwrap_or_default();
    let text = texts.format(
        "time",
        &[
            ("day", &civil.day().to_string()),
            ("month", month),
            ("year", &civil.year().to_string()),
            ("time", &format!("{:02}:{:02}", civil.hour(), civil.minute())),
        ],
    );
    html! { time id=[id] datetime=(format!("{at:.3}")) { (text) } }
}
