//! The one shape of every JSON answer: `{success, message, data, timestamp, as_of}`; errors add `code` and `http_status` (and a `hint`).

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use crate::service::LakeError;
use livelake_queries::text::time::rfc3339;

/// A whole answer.
#[derive(Debug, Serialize)]
pub struct Envelope<T> {
    /// Whether `data` is what was asked for.
    pub success: bool,
    /// In words.
    pub message: String,
    /// The answer itself; `null` in errors.
    pub data: T,
    /// When the answer was made, RFC 3339.
    pub timestamp: String,
    /// The lake's timestamp at which it is exact, microseconds since 1970 UTC; absent where that means nothing.
    pub as_of: Option<u64>,
    /// Errors only: a stable name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Errors only: the status, for those who see only the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Errors only: what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The time now as answers show it.
pub fn now() -> String {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    rfc3339(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// A good answer of any serialisable data.
pub fn success(status: StatusCode, message: &str, data: impl Serialize, as_of: Option<u64>) -> HttpResponse {
    HttpResponse::build(status).json(Envelope {
        success: status.is_success(),
        message: message.to_owned(),
        data,
        timestamp: now(),
        as_of,
        code: None,
        http_status: None,
        hint: None,
    })
}

/// The envelope of an error, to be sent with [`LakeError::http_status`].
pub fn of_error(error: &LakeError) -> Envelope<Option<()>> {
    Envelope {
        success: false,
        message: error.message.clone(),
        data: None,
        timestamp: now(),
        as_of: None,
        code: Some(error.code),
        http_status: Some(error.http_status),
        hint: error.hint.clone(),
    }
}

/// An error as an answer.
pub fn failure(error: &LakeError) -> HttpResponse {
    let status = StatusCode::from_u16(error.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(of_error(error))
}

/// An error of this server's own.
pub fn error(code: &'static str, http_status: u16, message: String, hint: Option<String>) -> LakeError {
    let sqlstate = match http_status {
        404 => "42P01",
        408 | 504 => "57014",
        500..=599 => "XX000",
        _ => "22023",
    };
    LakeError { code, sqlstate, http_status, message, hint }
}

/// 404 for a path that nothing answers.
pub async fn no_such_path(request: HttpRequest) -> HttpResponse {
    failure(&error(
        "unknown_path",
        404,
        format!("nothing is served at {}", request.path()),
        Some("the paths are listed at /docs".to_owned()),
    ))
}

/// 405.
pub fn method_not_allowed(allowed: &str) -> HttpResponse {
    let mut response = failure(&error(
        "method_not_allowed",
        405,
        format!("only {allowed} is served here"),
        Some("see /docs for an example".to_owned()),
    ));
    if let Ok(value) = allowed.parse() {
        response.headers_mut().insert(actix_web::http::header::ALLOW, value);
    }
    response
}
