//! Other layers' errors as a client sees them.

use arrow::error::ArrowError;
use livelake_dataflow::protocol::EngineError;
use livelake_queries::plan::SEVERAL_ROWS;
use livelake_queries::{SqlError, SqlErrorKind};

use crate::service::LakeError;

/// Something that is not the client's fault.
pub fn internal(error: impl std::fmt::Display) -> LakeError {
    LakeError { code: "internal", sqlstate: "XX000", http_status: 500, message: error.to_string(), hint: None }
}

/// Something that livelake cannot do.
pub fn not_supported(message: impl Into<String>) -> LakeError {
    LakeError { code: "not_supported", sqlstate: "0A000", http_status: 400, message: message.into(), hint: None }
}

impl From<SqlError> for LakeError {
    fn from(error: SqlError) -> LakeError {
        let (code, http_status) = match error.kind {
            SqlErrorKind::UnknownRelation => ("unknown_relation", 404),
            SqlErrorKind::UnknownColumn => ("unknown_column", 400),
            SqlErrorKind::Unsupported => ("not_supported", 400),
            SqlErrorKind::Exists => ("exists", 409),
            SqlErrorKind::InUse => ("in_use", 409),
            _ => ("invalid_sql", 400),
        };
        let message = if error.position.file.is_some() || error.position.line > 1 || error.position.column > 1 {
            format!("{}: {}", error.position, error.message)
        } else {
            error.message
        };
        LakeError { code, sqlstate: error.kind.sqlstate(), http_status, message, hint: error.hint }
    }
}

impl From<EngineError> for LakeError {
    fn from(error: EngineError) -> LakeError {
        let (code, sqlstate, http_status) = match &error {
            EngineError::Compacted { .. } => ("compacted", "22023", 410),
            EngineError::UnknownRelation(_) => ("unknown_relation", "42P01", 404),
            EngineError::NotArranged(_) => ("not_kept", "55000", 400),
            EngineError::Stopped => ("unavailable", "57P01", 503),
            _ => ("internal", "XX000", 500),
        };
        LakeError { code, sqlstate, http_status, message: error.to_string(), hint: None }
    }
}

impl From<datafusion::error::DataFusionError> for LakeError {
    fn from(error: datafusion::error::DataFusionError) -> LakeError {
        use datafusion::error::DataFusionError as E;
        match error.find_root() {
            E::External(inner) => {
                if let Some(engine) = inner.downcast_ref::<EngineError>() {
                    return engine.clone().into();
                }
                if let Some(sql) = inner.downcast_ref::<SqlError>() {
                    return sql.clone().into();
                }
                internal(inner)
            }
            E::ArrowError(inner, _) => {
                let (code, sqlstate) = value_error(inner);
                LakeError { code, sqlstate, http_status: 400, message: inner.to_string(), hint: None }
            }
            E::Execution(message) if message == SEVERAL_ROWS => LakeError {
                code: "cardinality_violation",
                sqlstate: "21000",
                http_status: 400,
                message: message.clone(),
                hint: Some("make it return one row: an aggregate, or a condition on a key".to_owned()),
            },
            E::NotImplemented(message) => not_supported(message.clone()),
            E::Internal(message) => internal(message),
            other => LakeError {
                code: "invalid_sql",
                sqlstate: "42000",
                http_status: 400,
                message: other.strip_backtrace(),
                hint: None,
            },
        }
    }
}

/// PostgreSQL's codes of what a value can do wrong.
fn value_error(error: &ArrowError) -> (&'static str, &'static str) {
    match error {
        ArrowError::ArithmeticOverflow(_) => ("out_of_range", "22003"),
        ArrowError::ComputeError(message) if message.contains("overflow") => ("out_of_range", "22003"),
        ArrowError::DivideByZero => ("division_by_zero", "22012"),
        // arrow's words for a number, as against a text, that does not fit
        ArrowError::CastError(message) if message.contains("out of range") || message.starts_with("Can't cast value") => {
            ("out_of_range", "22003")
        }
        ArrowError::CastError(_) | ArrowError::ParseError(_) => ("invalid_text", "22P02"),
        _ => ("invalid_value", "22000"),
    }
}
