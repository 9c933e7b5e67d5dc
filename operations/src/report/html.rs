//! The report as one HTML file without any other: it prints on A4, and opens anywhere.

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{AuditVerdict, CategoryReport, PeopleAt, RecordsReport, Report};

/// Rows up to which people are printed by the hour: two weeks.
const MAX_PRINTED_HOURS: usize = 14 * 24;
/// Columns of a printed distribution, with the whole percents that each counts.
const COLUMNS: [(&str, std::ops::RangeInclusive<usize>); 12] = [
    ("<1", 0..=0),
    ("1–9", 1..=9),
    ("10–19", 10..=19),
    ("20–29", 20..=29),
    ("30–39", 30..=39),
    ("40–49", 40..=49),
    ("50–59", 50..=59),
    ("60–69", 60..=69),
    ("70–79", 70..=79),
    ("80–89", 80..=89),
    ("90–99", 90..=99),
    ("100", 100..=100),
];

const STYLE: &str = "
    @page { size: A4; margin: 16mm; }
    body { max-width: 178mm; margin: auto; font: 10pt/1.35 sans-serif; color: #000; background: #fff; }
    h1 { font-size: 16pt; } h2 { font-size: 12pt; margin-top: 8mm; break-after: avoid; }
    table { border-collapse: collapse; width: 100%; } thead { display: table-header-group; }
    th, td { padding: 1mm 1.5mm; border-bottom: 0.2mm solid #999; text-align: right; }
    th:first-child, td:first-child { text-align: left; } tr { break-inside: avoid; }
    .distribution { font-size: 8pt; } .hours { columns: 3; } .hours p { margin: 0; }
";

/// Renders the report.
pub(super) fn render(report: &Report) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Report: " (report.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (report.name) }
                (summary(report))
                h2 { "Averages and medians" }
                (averages(&report.categories))
                h2 { "People by the percentage that they gave" }
                (distributions(&report.categories))
                h2 { "People over time" }
                (people_over_time(report))
                h2 { "Records of the log, of all budgets" }
                (records(&report.records))
                h2 { "Audit" }
                (audit(&report.audit))
            }
        }
    }
}

fn summary(report: &Report) -> Markup {
    let state = if report.is_final {
        "Final: the budget is closed, and everything that was accepted in time is counted."
    } else {
        "Not final: the budget is open, or not everything is counted."
    };
    html! {
        p { strong { (report.people) " people" } ". " (state) }
        @if report.annulled > 0 {
            p { "Annulled, and not counted: " (report.annulled) "." }
        }
        p {
            "Budget " code { (report.budget) } ", version " code { (report.version) }
            ", generation " (report.generation) ". Made at " (format!("{:.0}", report.made_at)) "."
        }
    }
}

fn averages(categories: &[CategoryReport]) -> Markup {
    html! {
        table {
            thead { tr { th { "Category" } th { "Average %" } th { "Median %" } th { "Basis points" } } }
            tbody {
                @for category in categories {
                    tr {
                        td { (category.name) }
                        td { (category.average_percent) }
                        td { (category.median_percent) }
                        td { (category.total_basis_points) }
                    }
                }
            }
        }
    }
}

fn distributions(categories: &[CategoryReport]) -> Markup {
    let count = |category: &CategoryReport, percents: &std::ops::RangeInclusive<usize>| -> u64 {
        category.distribution.get(percents.clone()).into_iter().flatten().sum()
    };
    html! {
        table class="distribution" {
            thead { tr { th { "%" } @for (label, _) in &COLUMNS { th { (label) } } } }
            tbody {
                @for category in categories {
                    tr {
                        td { (category.name) }
                        @for (_, percents) in &COLUMNS { td { (count(category, percents)) } }
                    }
                }
            }
        }
    }
}

fn people_over_time(report: &Report) -> Markup {
    let by_hour = report.people_by_hour.len() <= MAX_PRINTED_HOURS;
    let points = if by_hour { &report.people_by_hour } else { &report.people_by_day };
    let time = |point: &PeopleAt| {
        let civil = point.at.to_zoned(TimeZone::UTC);
        format!("{} {:02}:{:02}", civil.date(), civil.hour(), civil.minute())
    };
    html! {
        p { "Each line counts what was accepted before it, in UTC." }
        @if points.is_empty() { p { "No full hour has passed since the first answer." } }
        div class="hours" { @for point in points { p { (time(point)) ": " (point.people) } } }
    }
}

fn records(records: &RecordsReport) -> Markup {
    html! {
        p {
            (records.applied) " counted, " (records.ignored) " ignored (repeated, or behind the closing), "
            (records.dead_lettered) " rejected as dead letters."
        }
    }
}

fn audit(audit: &AuditVerdict) -> Markup {
    html! {
        p {
            "Verdict: " strong { (audit.verdict) } ". " (audit.records) " records were compared with everything stored: "
            (audit.differences) " differences, " (audit.not_compared) " not compared."
        }
        @if !audit.findings.is_empty() {
            ul { @for finding in &audit.findings { li { (finding) } } }
        }
    }
}
