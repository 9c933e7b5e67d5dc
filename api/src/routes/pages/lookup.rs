//! The budget of a page, or the page that says why there is none.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use page::html::{not_found_page, unavailable_page};
use page::view::BudgetView;
use schemas::{Budget, Openness};

use super::html_response::{private_page, unavailable};
use super::page_request::PageRequest;
use crate::routes::ApiState;

/// Returns a budget.
///
/// # Errors
/// The response without it: an unknown budget, or one that this process cannot read now.
pub(super) fn budget(
    api: &ApiState,
    id: &str,
    request: &PageRequest,
) -> Result<Arc<Budget>, Box<Response>> {
    // Read before the catalog: a budget that loads in between must not become a 404.
    let loaded = api.definitions.is_loaded();
    let catalog = api.definitions.catalog();
    if let Some(budget) = catalog.get(id) {
        return Ok(Arc::clone(budget));
    }
    if !loaded || catalog.is_unreadable(id) {
        return Err(Box::new(not_now(request)));
    }
    let views =
        catalog.iter().map(|budget| BudgetView::new(budget, request.language(), request.now));
    let open: Vec<BudgetView> = views.filter(|view| view.openness == Openness::Open).collect();
    Err(Box::new(private_page(StatusCode::NOT_FOUND, not_found_page(request.texts, &open))))
}

/// Responds that the service cannot answer now.
pub(super) fn not_now(request: &PageRequest) -> Response {
    unavailable(unavailable_page(request.texts, &request.path, &request.query))
}
