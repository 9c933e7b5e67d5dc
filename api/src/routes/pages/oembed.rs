//! `GET /oembed?url=`: how other services show a link to results (oEmbed 1.0).
//!
//! Only of this service's own pages, and only if `page.public_url` says which those are. The answer depends on the
//! budget's definition alone, never on its results.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use http::{HeaderValue, Uri};
use page::html::embed_frame;
use page::language::Language;
use page::view::BudgetView;
use runtime::problem::{Problem, ProblemKind};
use serde::Serialize;

use super::page_request::PageRequest;
use crate::answer::surrogate_key;
use crate::routes::ApiState;
use crate::routes::response::{cacheable, note_surrogate_key, tagged};

const WIDTH_PX: u32 = 640;
const HEIGHT_PX: u32 = 720;
/// How long a consumer may keep the answer, in seconds.
const CACHE_AGE_SECONDS: u32 = 3600;

/// An oEmbed answer.
#[derive(Debug, Serialize)]
struct OEmbed<'a> {
    version: &'static str,
    r#type: &'static str,
    title: &'a str,
    provider_name: &'static str,
    provider_url: &'a str,
    cache_age: u32,
    html: String,
    width: u32,
    height: u32,
}

/// The parameters of a request.
#[derive(Debug, PartialEq, Eq)]
struct Parameters {
    url: String,
    max_width: u32,
    max_height: u32,
}

#[utoipa::path(
    get,
    path = "/oembed",
    tag = "embedding",
    operation_id = "getOEmbed",
    summary = "Describe a page of this service for another site (oEmbed 1.0)",
    params(
        ("url" = String, Query, description = "The address of a budget's page", min_length = 1),
        ("maxwidth" = Option<u32>, Query, description = "Maximum width in pixels", minimum = 1),
        ("maxheight" = Option<u32>, Query, description = "Maximum height in pixels", minimum = 1),
        ("format" = Option<String>, Query, description = "`json`", pattern = "^json$"),
    ),
    responses(
        (status = 200, description = "A frame with the results", body = ref("#/components/schemas/OEmbed"),
            content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn describe(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let parameters = Parameters::parse(&parts.uri)?;
    let not_ours = || {
        Problem::new(ProblemKind::NotFound)
            .detail("`url` is not the address of a budget on this service")
    };
    let public_url = api.site.public_url().ok_or_else(not_ours)?;
    let (id, lang) = page_of(&parameters.url, public_url).ok_or_else(not_ours)?;
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&id).ok_or_else(|| api.no_such_budget(&[&id]))?;
    let request = PageRequest::of(&parts);
    let language = Language::choose(lang.as_deref(), None);
    let view = BudgetView::new(budget, language, request.now);
    let (width, height) =
        (WIDTH_PX.min(parameters.max_width), HEIGHT_PX.min(parameters.max_height));
    let answer = OEmbed {
        version: "1.0",
        r#type: "rich",
        title: &view.name.text,
        provider_name: "Tax Budget Allocator",
        provider_url: public_url,
        cache_age: CACHE_AGE_SECONDS,
        html: embed_frame(&view, language, public_url, width, height),
        width,
        height,
    };
    let body = serde_json::to_vec(&answer).map_err(|_| Problem::new(ProblemKind::Internal))?;
    let mut response = cacheable(&parts.headers, &tagged(body));
    let key: HeaderValue = surrogate_key(&budget.id);
    note_surrogate_key(response.headers_mut(), key);
    Ok(response)
}

impl Parameters {
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Problem::new(ProblemKind::Malformed).detail("the query is malformed"));
        };
        let find =
            |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        if find("format").is_some_and(|format| format != "json") {
            return Err(
                Problem::new(ProblemKind::NotAcceptable).detail("the only `format` is `json`")
            );
        }
        let mut problem = Problem::new(ProblemKind::Malformed).detail("the query is malformed");
        let mut pixels = |name: &str| match find(name).map(|text| text.parse::<u32>()) {
            None => u32::MAX,
            Some(Ok(pixels)) if pixels > 0 => pixels,
            Some(_) => {
                problem =
                    problem.clone().fault(name, "must be a whole number of pixels, at least 1");
                0
            }
        };
        let (max_width, max_height) = (pixels("maxwidth"), pixels("maxheight"));
        let url = find("url").cloned().unwrap_or_default();
        if url.is_empty() {
            problem = problem.fault("url", "is missing");
        }
        if problem.recorded_faults().is_empty() {
            Ok(Self { url, max_width, max_height })
        } else {
            Err(problem)
        }
    }
}

/// Returns the budget and the language of one of our own pages' addresses.
fn page_of(url: &str, public_url: &str) -> Option<(String, Option<String>)> {
    let rest = url.strip_prefix(public_url)?;
    let uri: Uri = rest.parse().ok().filter(|_| rest.starts_with('/'))?;
    let path = uri.path();
    let path = path.strip_prefix("/embed").unwrap_or(path);
    let id = path.strip_prefix("/budgets/")?;
    let id = id.strip_suffix("/results").unwrap_or(id);
    if id.is_empty() || id.contains('/') {
        return None;
    }
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri).map(|Query(pairs)| pairs);
    let lang = pairs.unwrap_or_default().into_iter().find(|(name, _)| name == "lang");
    Some((id.to_owned(), lang.map(|(_, tag)| tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://a.example";

    #[test]
    fn only_addresses_of_our_own_budgets_are_known() {
        let taxes = |lang: Option<&str>| Some(("taxes".to_owned(), lang.map(str::to_owned)));
        for (url, page) in [
            ("https://a.example/budgets/taxes", taxes(None)),
            ("https://a.example/budgets/taxes/results?lang=de", taxes(Some("de"))),
            ("https://a.example/embed/budgets/taxes/results?theme=dark&lang=ar", taxes(Some("ar"))),
            ("https://a.example/budgets/taxes/mine", None),
            ("https://a.example/budgets/", None),
            ("https://a.example/", None),
            ("https://a.example", None),
            ("https://a.example.org/budgets/taxes", None),
            ("https://a.example:81/budgets/taxes", None),
            ("http://a.example/budgets/taxes", None),
            ("//a.example/budgets/taxes", None),
            ("/budgets/taxes", None),
        ] {
            assert_eq!(page_of(url, OURS), page, "{url}");
        }
    }

    #[test]
    fn all_faults_of_a_query_are_reported_at_once() {
        let parse = |query: &str| {
            Parameters::parse(&format!("/oembed?{query}").parse().unwrap_or_default())
        };
        let found = parse("url=https%3A%2F%2Fa.example%2F&maxwidth=300");
        let url = "https://a.example/".to_owned();
        let expected = Parameters { url, max_width: 300, max_height: u32::MAX };
        assert_eq!(found.ok(), Some(expected));
        let problem = parse("maxwidth=0&maxheight=-1").err();
        assert_eq!(problem.map(|problem| problem.recorded_faults().len()), Some(3));
        let problem = parse("url=x&format=xml").err();
        assert_eq!(problem.map(|problem| problem.kind()), Some(ProblemKind::NotAcceptable));
    }
}
