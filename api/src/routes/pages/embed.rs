//! `GET /embed/budgets/{budget}/results` and `GET /embed.js`: results on other sites.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use page::assets::{Assets, EMBED_SCRIPT};
use page::html::Theme;
use runtime::http::{ContentCoding, etag_of, has_already};
use runtime::problem::{Problem, ProblemKind};

use super::html_response::{accepts_gzip, allow_other_origins};
use super::page_request::PageRequest;
use super::rendered::PageKind;
use super::{budget, lookup};
use crate::routes::ApiState;

/// Other sites name the script without a digest, so a new one must arrive soon.
const SCRIPT_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Shows a budget's results for a frame. An error is shown in the frame as well.
pub(super) async fn results(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let theme = theme(&parts.uri);
    let request = PageRequest::of(&parts);
    let mut response = match lookup::budget(&api, &budget, &request) {
        Ok(budget) => budget::public(&api, &budget, &request, PageKind::Embed(theme)).await,
        Err(response) => *response,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, api.site.embed_policy.clone());
    allow_other_origins(headers);
    response
}

fn theme(uri: &Uri) -> Theme {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Theme::default();
    };
    let theme = pairs.into_iter().find(|(name, _)| name == "theme");
    theme.map_or(Theme::default(), |(_, theme)| Theme::parse(&theme))
}

/// Serves the script that puts embeds into pages.
pub(super) async fn script(request: HeaderMap) -> Result<Response, Problem> {
    let script = Assets::embedded()
        .get(EMBED_SCRIPT)
        .ok_or_else(|| Problem::new(ProblemKind::NotFound).detail("there is no such file"))?;
    let compress = accepts_gzip(&request);
    let coding = if compress { ContentCoding::Gzip } else { ContentCoding::Identity };
    let etag = coding.etag(&etag_of(script.content));
    let mut response = if has_already(&request, &etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if compress {
        Response::new(Body::from(script.gzipped.as_slice()))
    } else {
        Response::new(Body::from(script.content))
    };
    let headers = response.headers_mut();
    if let Some(coding) = coding.header_value() {
        headers.insert(CONTENT_ENCODING, coding);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(script.media_type));
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, SCRIPT_CACHE_CONTROL);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    allow_other_origins(headers);
    Ok(response)
}
