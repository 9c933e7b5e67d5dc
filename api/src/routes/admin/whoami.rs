//! `GET /v1/admin/whoami`: the administrator and role of the request's token.

use axum::Json;
use runtime::admin::{Principal, Role};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct WhoamiResponse {
    name: String,
    role: Role,
}

pub(super) async fn whoami(principal: Principal) -> Json<WhoamiResponse> {
    Json(WhoamiResponse { name: principal.name().to_owned(), role: principal.role() })
}
