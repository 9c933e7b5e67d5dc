//! `GET /` and `GET /budgets`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use page::html::list_page;
use page::view::BudgetView;
use schemas::{Budget, Openness};

use super::html_response::{PageBytes, public_page};
use super::page_request::PageRequest;
use super::{budget, lookup};
use crate::routes::ApiState;

/// Shows the page of the only open budget, or the list.
pub(super) async fn home(State(api): State<Arc<ApiState>>, request: Request) -> Response {
    let request = PageRequest::of(&request.into_parts().0);
    let catalog = api.definitions.catalog();
    let open: Vec<&Arc<Budget>> =
        catalog.iter().filter(|budget| budget.openness(request.now) == Openness::Open).collect();
    match open[..] {
        [only] if api.definitions.is_loaded() => budget::show(&api, only, &request).await,
        _ => show_list(&api, &request),
    }
}

/// Shows the list of all budgets.
pub(super) async fn list(State(api): State<Arc<ApiState>>, request: Request) -> Response {
    show_list(&api, &PageRequest::of(&request.into_parts().0))
}

fn show_list(api: &ApiState, request: &PageRequest) -> Response {
    if !api.definitions.is_loaded() {
        return lookup::not_now(request);
    }
    let catalog = api.definitions.catalog();
    let views =
        catalog.iter().map(|budget| BudgetView::new(budget, request.language(), request.now));
    let html = list_page(request.texts, &views.collect::<Vec<_>>());
    let key = HeaderValue::from_static("budgets");
    public_page(&request.headers, &PageBytes::new(html), key)
}
