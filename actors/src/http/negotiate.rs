//! Which format a client wants, from its `Accept` header.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::envelope;
use crate::encode::RowFormat;
use crate::service::LakeError;

/// The format with the highest quality among those that can be given; JSON if nothing is asked for.
pub(super) fn row_format(request: &HttpRequest) -> Result<RowFormat, LakeError> {
    let Some(accept) = request.headers().get(header::ACCEPT) else { return Ok(RowFormat::Json) };
    let accept = accept.to_str().unwrap_or("*/*");
    let mut best: Option<(f32, RowFormat)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0_f32);
        let format = match media.as_str() {
            "" | "*/*" | "application/*" | "application/json" => RowFormat::Json,
            "text/csv" | "text/*" => RowFormat::Csv,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => RowFormat::Ndjson,
            "application/vnd.apache.arrow.stream" => RowFormat::Arrow,
            _ => continue,
        };
        if quality > 0.0 && best.is_none_or(|(most, _)| quality > most) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        envelope::error(
            "not_acceptable",
            406,
            format!("rows cannot be given as {accept}"),
            Some("ask for application/json, text/csv, application/x-ndjson or application/vnd.apache.arrow.stream".to_owned()),
        )
    })
}

/// Whether the client wants server-sent events.
pub(super) fn wants_events(request: &HttpRequest) -> bool {
    request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"))
}
