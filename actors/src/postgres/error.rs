//! Errors as PostgreSQL's clients expect them: severity, SQLSTATE, message, hint.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use pgwire::error::{ErrorInfo, PgWireError};

use crate::service::LakeError;

/// A lake's error on the wire.
pub(super) fn of_lake(error: LakeError) -> PgWireError {
    wire(error.sqlstate, error.message, error.hint)
}

/// An error of this server's own.
pub(super) fn wire(sqlstate: &str, message: impl Into<String>, hint: Option<String>) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".to_owned(), sqlstate.to_owned(), message.into());
    info.severity_nonlocalized = Some("ERROR".to_owned());
    info.hint = hint;
    PgWireError::UserError(Box::new(info))
}

/// What a client sent cannot be done here.
pub(super) fn not_supported(message: impl Into<String>, hint: &str) -> PgWireError {
    wire("0A000", message, Some(hint.to_owned()))
}

/// Rows that cannot be written.
pub(super) fn of_arrow(error: &ArrowError) -> PgWireError {
    wire("XX000", format!("the rows cannot be sent: {error}"), None)
}

/// A catalog query that failed.
pub(super) fn of_datafusion(error: &DataFusionError) -> PgWireError {
    let message = error.strip_backtrace();
    let sqlstate = match error.find_root() {
        DataFusionError::SchemaError(_, _) => "42703",
        DataFusionError::SQL(_, _) => "42601",
        DataFusionError::Plan(_) if message.contains("not found") => "42P01",
        DataFusionError::Plan(_) => "42601",
        DataFusionError::NotImplemented(_) => "0A000",
        _ => "XX000",
    };
    wire(sqlstate, message, None)
}
