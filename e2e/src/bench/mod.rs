//! The benchmark: each figure beside its own limit, both measured in one run on one machine.
//!
//! | figure | module | against |
//! |---|---|---|
//! | `catch-up` | [`catch_up`] | a bare consumer of the same topic |
//! | `post`, `batch`, `get` | [`http`] | a bare axum handler; a bare idempotent producer |
//! | `rebuild` | [`rebuild`] | a bare consumer of the same topic; milliseconds |
//! | `memory` | [`memory`] | bytes a person |
//! | `take-over` | [`take_over`] | seconds |
//! | `visible` | [`visible`] | milliseconds |

pub mod catch_up;
pub mod http;
pub mod memory;
pub mod paced;
pub mod rebuild;
pub mod records;
pub mod report;
pub mod steady;
pub mod take_over;
pub mod visible;
pub mod wrk;

use anyhow::{Result, ensure};

use report::Row;

/// The names of all figures, in the order in which they are measured.
pub const FIGURES: [&str; 8] =
    ["catch-up", "post", "batch", "get", "visible", "take-over", "rebuild", "memory"];

/// Measures the figures named, or all, tells each as it comes, and prints them as a table. Whether all of them could be
/// measured and none missed its limit.
///
/// # Errors
/// When a name is none.
pub async fn run(names: &[String]) -> Result<bool> {
    for name in names {
        ensure!(
            FIGURES.contains(&name.as_str()),
            "no figure is called {name}; there are {}",
            FIGURES.join(", ")
        );
    }
    let mut rows = Vec::new();
    for figure in FIGURES {
        if names.is_empty() || names.iter().any(|name| name == figure) {
            steady::until_quiet().await?;
            report::say(format!("measuring {figure}"));
            match measure(figure).await {
                Ok(measured) => {
                    measured.iter().for_each(report::say);
                    rows.extend(measured);
                }
                // The others have their turn all the same.
                Err(error) => {
                    report::say(format!("cannot measure {figure}: {error:#}"));
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
        "take-over" => take_over::measure().await,
        "rebuild" => rebuild::measure().await,
        _ => memory::measure().await,
    }
}
