//! `GET /v1/admin/whoami`: the administrator and role of the request's token.

use axum::Json;
use runtime::admin::{Principal, Role};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(super) struct WhoamiResponse {
    name: String,
    #[schema(value_type = String)]
    role: Role,
}

#[utoipa::path(
    get,
    path = "/v1/admin/whoami",
    tag = "administration",
    operation_id = "whoami",
    summary = "Name and role of the token",
    responses(
        (status = 200, description = "The administrator", body = WhoamiResponse, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn whoami(principal: Principal) -> Json<WhoamiResponse> {
    Json(WhoamiResponse { name: principal.name().to_owned(), role: principal.role() })
}
