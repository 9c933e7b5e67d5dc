//! `GET /v1/admin/whoami`: whose token it is and what it allows.

use axum::Json;
use runtime::admin::{Principal, Role};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Me {
    name: String,
    role: Role,
}

pub(super) async fn whoami(principal: Principal) -> Json<Me> {
    Json(Me { name: principal.name().to_owned(), role: principal.role() })
}
