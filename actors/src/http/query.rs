//! `POST /api/v1/sql {"sql": "…"}`: one statement of any kind; `SUBSCRIBE` answers with a stream of messages.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::envelope::{error, failure};
use super::{Shared, answer, negotiate, subscribe};
use crate::service::LakeError;

/// A body that has not arrived by then is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    sql: String,
}

pub(super) async fn sql(request: HttpRequest, body: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let sql = match read(&request, body, shared.options.body_limit).await {
        Ok(sql) => sql,
        Err(error) => return failure(&error),
    };
    let first_word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if first_word.eq_ignore_ascii_case("subscribe") {
        return subscribe::statement(&request, &shared, sql).await;
    }
    let format = match negotiate::row_format(&request) {
        Ok(format) => format,
        Err(error) => return failure(&error),
    };
    let service = Arc::clone(&shared.service);
    answer::stream(&shared, format, async move { service.execute(&sql, Vec::new()).await }).await
}

async fn read(request: &HttpRequest, body: web::Payload, limit: usize) -> Result<String, LakeError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Insisting on JSON also keeps other sites' pages from sending statements: a browser asks first for such a request.
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(error(
            "unsupported_media_type",
            415,
            format!("the body must be application/json, not {content_type:?}"),
            Some(r#"send {"sql": "SELECT 1"} with the header content-type: application/json"#.to_owned()),
        ));
    }
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, body.to_bytes_limited(limit)).await {
        Err(_) => return Err(error("timeout", 408, "the request's body did not arrive in time".to_owned(), None)),
        Ok(Err(_)) => {
            let message = format!("the request's body is larger than {limit} bytes");
            return Err(error(
                "body_too_large",
                413,
                message,
                Some("load many rows with COPY over the PostgreSQL port".to_owned()),
            ));
        }
        Ok(Ok(Err(cause))) => {
            return Err(error("invalid_body", 400, format!("the request's body cannot be read: {cause}"), None));
        }
        Ok(Ok(Ok(bytes))) => bytes,
    };
    let statement: Statement = serde_json::from_slice(&bytes).map_err(|cause| {
        error(
            "invalid_json",
            400,
            format!("the request's body is not the JSON expected here: {cause}"),
            Some(r#"send {"sql": "SELECT 1"}"#.to_owned()),
        )
    })?;
    Ok(statement.sql)
}
