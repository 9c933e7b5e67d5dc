//! The public pages: HTML of the crate `page`, with the answers of this process's readers.
//!
//! | module | owns |
//! |---|---|
//! | `page_request` | language, form values and time of a request |
//! | `lookup` | the budget of a page, or the page that says why there is none |
//! | `page_results`, `page_history` | an aggregate and a history as a page shows them |
//! | `rendered` | pages that everyone may see, kept until their content changes |
//! | `html_response` | headers: security, caching, compression |
//! | `home`, `budget`, `confirm`, `mine`, `assets` | the routes |

mod assets;
mod budget;
mod confirm;
mod home;
mod html_response;
mod lookup;
mod mine;
mod page_history;
mod page_request;
mod page_results;
mod rendered;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::ApiState;

pub use rendered::RenderedPages;

/// Builds the routes of the pages.
pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/", get(home::home))
        .route("/budgets", get(home::list))
        .route("/budgets/{budget}", get(budget::page))
        .route("/budgets/{budget}/results", get(budget::results))
        .route("/budgets/{budget}/confirm", get(confirm::page))
        .route("/budgets/{budget}/mine", get(mine::page))
        .route("/assets/{digest}/{file}", get(assets::file))
}
