//! The benchmark: each figure with its limit or baseline, measured in one run on one machine.
//!
//! | figure | module | compared with |
//! |---|---|---|
//! | `catch-up` | [`catch_up`] | the fastest [plain consumer](plain_consumer) of the same topic |
//! | `post`, `batch`, `get` | [`http`] | a plain axum handler; a plain idempotent producer |
//! | `rebuild` | [`rebuild`] | a plain consumer of the same topic; milliseconds |
//! | `many-partitions`, `many-budgets` | [`many`] | percent of a core; milliseconds |
//! | `memory` | [`memory`] | bytes per person |
//! | `take-over` | [`takeover`] | seconds |
//! | `hand-over` | [`hand_over`] | seconds |
//! | `visible` | [`visible`] | milliseconds |
//! | `streams` | [`streams`] | milliseconds; the same load without streams; bytes per stream |
//! | `page` | [`page`] | the same bytes from nginx |
//! | `closing` | [`closing`] | requests per second |
//! | `limits` | [`rate_limits`] | the same requests without rate limits and sessions |

pub mod catch_up;
pub mod closing;
pub mod delivery;
pub mod hand_over;
pub mod http;
pub mod limits;
pub mod many;
pub mod memory;
pub mod paced;
pub mod page;
pub mod plain_consumer;
pub mod rate_limits;
pub mod rebuild;
pub mod records;
pub mod report;
pub mod size;
pub mod steady;
pub mod streams;
pub mod takeover;
pub mod visible;
pub mod watchers;
pub mod wrk;

use anyhow::{Result, ensure};

use report::Row;

/// The names of all figures, in order of measurement.
pub const FIGURES: [&str; 15] = [
    "catch-up",
    "post",
    "batch",
    "get",
    "visible",
    "take-over",
    "hand-over",
    "rebuild",
    "memory",
    "many-partitions",
    "many-budgets",
    "streams",
    "page",
    "closing",
    "limits",
];

/// Measures the named figures, or all, and prints them as a table.
///
/// Returns whether all were measured and within their limits.
///
/// # Errors
/// When a name is unknown.
pub async fn run(names: &[String]) -> Result<bool> {
    for name in names {
        ensure!(
            FIGURES.contains(&name.as_str()),
            "unknown figure {name}; the figures are {}",
            FIGURES.join(", ")
        );
    }
    let mut rows = Vec::new();
    for figure in FIGURES {
        if names.is_empty() || names.iter().any(|name| name == figure) {
            steady::until_quiet().await?;
            report::log_progress(format!("measuring {figure}"));
            match measure(figure).await {
                Ok(measured) => {
                    measured.iter().for_each(report::log_progress);
                    rows.extend(measured);
                }
                // The other figures are still measured.
                Err(error) => {
                    report::log_progress(format!("failed to measure {figure}: {error:#}"));
                    rows.push(Row::failed(figure, &error));
                }
            }
        }
    }
    Ok(report::print(&rows))
}

async fn measure(figure: &str) -> Result<Vec<Row>> {
    match figure {
        "catch-up" => catch_up::measure().await,
        "post" => http::post_one().await,
        "batch" => http::post_batch().await,
        "get" => http::get_aggregate().await,
        "visible" => visible::measure().await,
        "take-over" => takeover::measure().await,
        "hand-over" => hand_over::measure().await,
        "rebuild" => rebuild::measure().await,
        "memory" => memory::measure().await,
        "many-partitions" => many::many_partitions().await,
        "many-budgets" => many::many_budgets().await,
        "streams" => streams::measure().await,
        "page" => page::measure().await,
        "closing" => closing::measure().await,
        _ => rate_limits::measure().await,
    }
}
