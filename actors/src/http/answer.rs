//! An [`Answer`] as a response body: encoded piece by piece on the lake's runtime, passed through a bounded channel.

use actix_web::HttpResponse;
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;

use super::envelope::{self, failure};
use super::{Shared, envelope::error};
use crate::encode::{BatchEncoder, RowFormat, json};
use crate::service::{Answer, LakeError};

/// A piece is sent when it has grown to this many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that may wait for a slow client.
const PIECES_WAITING: usize = 4;

/// What a running answer hands to its connection.
enum Piece {
    /// The statement is accepted: tag and time are known. Always the first piece of an answer that did not fail.
    Head { tag: String, as_of: u64 },
    /// Part of the body.
    Body(Bytes),
}

/// A column as answers describe it.
#[derive(Serialize)]
struct ColumnHead<'a> {
    name: &'a str,
    r#type: String,
}

/// Runs `work` (which makes the answer) on the lake's runtime and streams its rows. The first piece of rows is waited for before the status
/// is sent, so that an error while planning or at the first rows is a proper error answer; an error later cuts the connection.
pub(super) async fn stream<F>(shared: &Shared, format: RowFormat, work: F) -> HttpResponse
where
    F: Future<Output = Result<Answer, LakeError>> + Send + 'static,
{
    let (send, mut receive) = mpsc::channel(PIECES_WAITING);
    // Not awaited: it ends when the rows do, or when the receiver is gone.
    drop(shared.spawn(async move {
        let failed = match work.await {
            Ok(answer) => produce(answer, format, &send).await,
            Err(error) => Err(error),
        };
        if let Err(error) = failed {
            // Nobody listens any more if this fails.
            let _ = send.send(Err(error)).await;
        }
    }));
    let limit = shared.options.query_timeout;
    let first = async {
        let head = receive.recv().await;
        let body = match &head {
            Some(Ok(_)) => receive.recv().await,
            _ => None,
        };
        (head, body)
    };
    let (head, body) = match tokio::time::timeout(limit, first).await {
        Ok(both) => both,
        Err(_) => {
            let message = format!("the query gave no rows within {} s", limit.as_secs());
            return failure(&error("timeout", 504, message, Some("ask for less, or make it a materialized view".to_owned())));
        }
    };
    let (tag, as_of) = match head {
        Some(Ok(Piece::Head { tag, as_of })) => (tag, as_of),
        Some(Err(error)) => return failure(&error),
        _ => return failure(&error("internal", 500, "the answer ended before it began".to_owned(), None)),
    };
    let first = match body {
        Some(Ok(Piece::Body(bytes))) => Some(bytes),
        Some(Err(error)) => return failure(&error),
        _ => None,
    };
    let rest = futures::stream::unfold(receive, |mut receive| async move {
        match receive.recv().await? {
            Ok(Piece::Body(bytes)) => Some((Ok(bytes), receive)),
            Ok(Piece::Head { .. }) => None,
            Err(error) => {
                tracing::warn!(code = error.code, message = %error.message, "answer broken off");
                Some((Err(std::io::Error::other(error.message)), receive))
            }
        }
    });
    HttpResponse::Ok()
        .content_type(format.media_type())
        .insert_header(("x-livelake-as-of", as_of.to_string()))
        .insert_header(("x-livelake-tag", tag))
        .streaming(futures::stream::iter(first.map(Ok)).chain(rest))
}

async fn produce(answer: Answer, format: RowFormat, send: &mpsc::Sender<Result<Piece, LakeError>>) -> Result<(), LakeError> {
    let Answer { schema, as_of, mut rows, tag } = answer;
    let mut piece = Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 2));
    if send.send(Ok(Piece::Head { tag: tag.clone(), as_of })).await.is_err() {
        return Ok(());
    }
    if format == RowFormat::Json {
        begin_envelope(&tag, &schema, &mut piece);
    }
    let broken = |error: arrow::error::ArrowError| {
        envelope::error(
            "not_supported",
            400,
            format!("the rows cannot be written in this format: {error}"),
            Some("cast the column to text".to_owned()),
        )
    };
    let mut encoder = BatchEncoder::begin(format, &schema, &mut piece).map_err(broken)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        // A piece stays near its size however large the batches are.
        for start in (0..batch.num_rows()).step_by(1_024) {
            encoder.batch(&batch.slice(start, 1_024.min(batch.num_rows() - start)), &mut piece).map_err(broken)?;
            if piece.len() >= PIECE_BYTES {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 2)));
                if send.send(Ok(Piece::Body(full.into()))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    encoder.finish(&mut piece).map_err(broken)?;
    if format == RowFormat::Json {
        piece.extend_from_slice(format!("],\"timestamp\":\"{}\",\"as_of\":{as_of}}}\n", envelope::now()).as_bytes());
    }
    // A client that went away needs no last piece.
    let _ = send.send(Ok(Piece::Body(piece.into()))).await;
    Ok(())
}

fn begin_envelope(tag: &str, schema: &arrow::datatypes::SchemaRef, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"success\":true,\"message\":");
    json::write_string(tag, out);
    out.extend_from_slice(b",\"columns\":");
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| ColumnHead { name: field.name(), r#type: crate::encode::text::type_name(field.data_type()) })
        .collect();
    // Names and types are strings: they can always be written.
    let _ = serde_json::to_writer(&mut *out, &columns);
    out.extend_from_slice(b",\"data\":[");
}
