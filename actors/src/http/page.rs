//! The page, the documentation and the API description: static files, compiled in, that ask nothing of the outside world.

use actix_web::{HttpResponse, web};

use super::envelope;

const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self'; frame-ancestors 'none'";

fn file(media_type: &str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(media_type)
        .insert_header(("content-security-policy", POLICY))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("cache-control", "no-cache"))
        .body(body)
}

/// `GET /`.
pub(super) async fn index() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("../../../dashboard/index.html"))
}

/// `GET /docs`.
pub(super) async fn docs() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("../../../dashboard/docs.html"))
}

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> HttpResponse {
    file("application/json", include_str!("../../../dashboard/openapi.json"))
}

/// `GET /assets/{name}`.
pub(super) async fn asset(name: web::Path<String>) -> HttpResponse {
    match name.as_str() {
        "style.css" => file("text/css; charset=utf-8", include_str!("../../../dashboard/style.css")),
        "app.js" => file("text/javascript; charset=utf-8", include_str!("../../../dashboard/app.js")),
        "docs.js" => file("text/javascript; charset=utf-8", include_str!("../../../dashboard/docs.js")),
        _ => envelope::failure(&envelope::error("unknown_path", 404, format!("there is no asset {name}"), None)),
    }
}
