//! `GET /budgets/{budget}` and `GET /budgets/{budget}/results`

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use page::form::{self, Applied, FormFault, FormValues, Tool};
use page::html::{BudgetPage, FormState, budget_page, embed_page, results_page};
use page::view::{BudgetView, Results};
use schemas::{Budget, Openness};

use super::html_response::{PageBytes, private_page, public_page};
use super::lookup;
use super::page_request::PageRequest;
use super::page_results::PageResults;
use super::rendered::{Basis, PageKey, PageKind};
use crate::answer::surrogate_key;
use crate::routes::ApiState;

pub(super) async fn page(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Response {
    let request = PageRequest::of(&request.into_parts().0);
    match lookup::budget(&api, &budget, &request) {
        Ok(budget) => show(&api, &budget, &request).await,
        Err(response) => *response,
    }
}

pub(super) async fn results(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Response {
    let request = PageRequest::of(&request.into_parts().0);
    match lookup::budget(&api, &budget, &request) {
        Ok(budget) => public(&api, &budget, &request, PageKind::Results).await,
        Err(response) => *response,
    }
}

/// Shows a budget's page: the same for everyone, or with the values of the request.
pub(super) async fn show(api: &ApiState, budget: &Budget, request: &PageRequest) -> Response {
    if request.form.has_values() && budget.openness(request.now) == Openness::Open {
        return with_values(api, budget, request).await;
    }
    public(api, budget, request, PageKind::Budget).await
}

/// Shows a page that is the same for everyone.
pub(super) async fn public(
    api: &ApiState,
    budget: &Budget,
    request: &PageRequest,
    kind: PageKind,
) -> Response {
    let results = PageResults::read(api, budget, request.now).await;
    let view = BudgetView::new(budget, request.language(), request.now);
    let key = PageKey { budget: budget.id.clone(), kind, language: request.language() };
    let basis = Basis {
        revision: budget.revision,
        state: view.state(),
        results: results.basis(),
        history_minute: results.history_minute(kind, request.now),
    };
    let page = match api.pages.get(&key, &basis) {
        Some(page) => page,
        None => {
            let mut is_whole = true;
            let html = match kind {
                PageKind::Results => {
                    let history = results.history(api, budget).await;
                    is_whole = history.is_some();
                    results_page(
                        request.texts,
                        &view,
                        &results.view(),
                        &history.unwrap_or_default(),
                        api.site.public_url(),
                    )
                }
                PageKind::Embed(theme) => embed_page(request.texts, &view, &results.view(), theme),
                PageKind::Budget => {
                    let values = FormValues::empty(budget);
                    let form = FormState { values: &values, faults: &[], applied: None };
                    render(api, request, &view, &results.view(), form, "")
                }
            };
            match is_whole {
                true => api.pages.keep(key, basis, html),
                false => Arc::new(PageBytes::new(html)),
            }
        }
    };
    public_page(&request.headers, &page, surrogate_key(&budget.id))
}

/// Shows the form with the values of the request, after the tool was applied.
async fn with_values(api: &ApiState, budget: &Budget, request: &PageRequest) -> Response {
    let results = PageResults::read(api, budget, request.now).await.view();
    let view = BudgetView::new(budget, request.language(), request.now);
    let values = FormValues::of(budget, &request.form);
    let (values, faults, applied) = apply(&values, request);
    let form = FormState { values: &values, faults: &faults, applied: applied.as_ref() };
    // Links to other languages keep the values, and check them again.
    let query = form::query(&form::fields(budget, &values), &[("do", "check")]);
    let html = render(api, request, &view, &results, form, &query);
    private_page(StatusCode::OK, html)
}

fn apply(
    values: &FormValues,
    request: &PageRequest,
) -> (FormValues, Vec<FormFault>, Option<Applied>) {
    let numbers = request.texts.numbers();
    let Some(tool) = request.form.tool else { return (values.tidied(numbers), Vec::new(), None) };
    match values.apply(tool, numbers) {
        Ok(applied) => {
            // The other tools make 100 %, or leave too much as it is: the form says so, without calling it a fault.
            let faults = if tool == Tool::Check { applied.values.faults() } else { Vec::new() };
            (applied.values.clone(), faults, Some(applied))
        }
        Err(faults) => (values.tidied(numbers), faults, None),
    }
}

fn render(
    api: &ApiState,
    request: &PageRequest,
    budget: &BudgetView,
    results: &Results,
    form: FormState<'_>,
    query: &str,
) -> String {
    let public_url = api.site.public_url();
    budget_page(&BudgetPage { texts: request.texts, budget, results, form, query, public_url })
}
