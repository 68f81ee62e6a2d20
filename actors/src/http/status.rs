//! How the lake is doing: health, metrics, sources, sinks, epochs.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::envelope::{failure, success};
use super::views::parse_query;
use super::{Shared, answer, negotiate};

/// `GET /health`: 200 while the lake can be relied on, else 503.
pub(super) async fn health(shared: web::Data<Shared>) -> HttpResponse {
    let health = shared.service.health();
    let status =
        if health.status == "running" && health.problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let message = if health.problems.is_empty() { health.status.clone() } else { health.problems.join("; ") };
    success(status, &message, health, None)
}

/// `GET /metrics`: Prometheus text.
pub(super) async fn metrics(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(shared.service.metrics())
}

/// `GET /api/v1/sources`.
pub(super) async fn sources(shared: web::Data<Shared>) -> HttpResponse {
    let sources = shared.service.sources();
    success(StatusCode::OK, &format!("{} sources", sources.len()), sources, None)
}

/// `GET /api/v1/sinks`: the rows of `SHOW SINKS`.
pub(super) async fn sinks(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let format = match negotiate::row_format(&request) {
        Ok(format) => format,
        Err(error) => return failure(&error),
    };
    let service = Arc::clone(&shared.service);
    answer::stream(&shared, format, async move { service.execute("SHOW SINKS", Vec::new()).await }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochsQuery {
    limit: Option<usize>,
}

/// `GET /api/v1/epochs?limit=`: the newest first.
pub(super) async fn epochs(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let query: EpochsQuery = match parse_query(&request) {
        Ok(query) => query,
        Err(error) => return failure(&error),
    };
    let epochs = shared.service.epochs(query.limit.unwrap_or(100).min(10_000));
    let as_of = epochs.first().map(|epoch| epoch.as_of);
    success(StatusCode::OK, &format!("{} epoch{}", epochs.len(), if epochs.len() == 1 { "" } else { "s" }), epochs, as_of)
}
