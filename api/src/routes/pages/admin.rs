//! `GET /admin`: the administrators' page. Everyone may have it; what it shows needs a token.

use axum::response::Response;
use http::StatusCode;
use page::html::admin_page;

use super::html_response::private_page;

pub(super) async fn page() -> Response {
    private_page(StatusCode::OK, admin_page())
}
