//! The one error of this crate: what is wrong with a statement, where it stands, and what would be right.
//!
//! It prints as `file:line:column: message`, so that editors jump to it; the hint follows on a line of its own.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenizerError};

/// A place in SQL text. Lines and columns count from 1; 0 means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The file, as the user named it; absent for statements that came over the wire.
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Position {
    /// The same file at another line and column.
    pub fn at(&self, location: Location) -> Position {
        Position { file: self.file.clone(), line: location.line, column: location.column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What kind of mistake it is, for callers that answer with a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlErrorKind {
    /// The text is not SQL.
    Syntax,
    /// A relation or schema that does not exist.
    UnknownRelation,
    /// A column that does not exist, or is ambiguous.
    UnknownColumn,
    /// An option of `WITH (…)` that is unknown or has an unusable value.
    InvalidOption,
    /// A name that is taken.
    Exists,
    /// A relation that others depend on.
    InUse,
    /// Meaningful, but nothing that livelake can do (yet).
    Unsupported,
    /// Anything else that does not plan: types that do not fit, aggregates in the wrong place, and so on.
    Invalid,
}

impl SqlErrorKind {
    /// PostgreSQL's five-letter code for it.
    pub fn sqlstate(self) -> &'static str {
        match self {
            SqlErrorKind::Syntax => "42601",
            SqlErrorKind::UnknownRelation => "42P01",
            SqlErrorKind::UnknownColumn => "42703",
            SqlErrorKind::InvalidOption => "22023",
            SqlErrorKind::Exists => "42P07",
            SqlErrorKind::InUse => "2BP01",
            SqlErrorKind::Unsupported => "0A000",
            SqlErrorKind::Invalid => "42000",
        }
    }
}

/// Why a statement cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What kind of mistake.
    pub kind: SqlErrorKind,
    /// Where it is.
    pub position: Position,
    /// What is wrong, in lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SqlError {
    /// An error at a place.
    pub fn new(kind: SqlErrorKind, position: Position, message: impl Into<String>) -> SqlError {
        SqlError { kind, position, message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with advice, if there is any.
    #[must_use]
    pub(crate) fn with_optional_hint(mut self, hint: Option<String>) -> SqlError {
        self.hint = hint.or(self.hint);
        self
    }

    pub(crate) fn from_tokenizer(error: TokenizerError, start: &Position) -> SqlError {
        SqlError::new(SqlErrorKind::Syntax, start.at(error.location), lower_first(&error.message))
    }

    /// sqlparser says the place at the end of its message only: ` at Line: 3, Column: 7`.
    pub(crate) fn from_parser(error: ParserError, start: &Position) -> SqlError {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_string(),
        };
        let (message, location) = split_location(&text);
        let position = location.map_or_else(|| start.clone(), |location| start.at(location));
        let message = message.replace("Expected: ", "expected ").replace(", found: ", ", found ");
        SqlError::new(SqlErrorKind::Syntax, position, lower_first(&message))
    }

    /// Turns a planning error into one with a place: the diagnostic's span where there is one, else the statement's start.
    pub(crate) fn from_datafusion(error: &DataFusionError, start: &Position) -> SqlError {
        if let Some(mut found) = carried(error) {
            if found.position.line == 0 {
                found.position = start.clone();
            }
            found.position.file = found.position.file.or_else(|| start.file.clone());
            return found;
        }
        let mut position = start.clone();
        let mut hint = None;
        if let Some(diagnostic) = error.diagnostic() {
            if let Some(span) = diagnostic.span {
                position = start.at(Location { line: span.start.line, column: span.start.column });
            }
            hint = diagnostic_hint(diagnostic);
        }
        let root = error.find_root();
        let (kind, message) = match root {
            DataFusionError::SchemaError(schema, _) => {
                let (message, nearest) = schema_error(schema);
                hint = nearest.or(hint);
                (SqlErrorKind::UnknownColumn, message)
            }
            DataFusionError::NotImplemented(message) => (SqlErrorKind::Unsupported, message.clone()),
            DataFusionError::Plan(message) => (kind_of_plan_error(message), message.clone()),
            DataFusionError::SQL(error, _) => return SqlError::from_parser((**error).clone(), start),
            other => (SqlErrorKind::Invalid, other.strip_backtrace()),
        };
        // The first line says what is wrong, further ones what might be right.
        let mut lines = message.trim_start_matches("Error during planning: ").lines();
        let first = lines.next().unwrap_or_default().trim_end_matches('.').to_string();
        let more: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
        let hint = hint.or_else(|| (!more.is_empty()).then(|| lower_first(&more.join("; "))));
        SqlError::new(kind, position, lower_first(&first)).with_optional_hint(hint)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// The nearest of `candidates` to a mistyped name, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// An error of ours that travelled through DataFusion.
fn carried(error: &DataFusionError) -> Option<SqlError> {
    let mut current = error;
    loop {
        match current {
            DataFusionError::External(inner) => return inner.downcast_ref::<SqlError>().cloned(),
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => current = inner,
            DataFusionError::Shared(inner) => current = inner,
            DataFusionError::Collection(all) => current = all.first()?,
            _ => return None,
        }
    }
}

fn diagnostic_hint(diagnostic: &Diagnostic) -> Option<String> {
    let helps = diagnostic.helps.iter().map(|help| help.message.as_str());
    let notes = diagnostic.notes.iter().map(|note| note.message.as_str());
    let all: Vec<&str> = helps.chain(notes).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn schema_error(error: &SchemaError) -> (String, Option<String>) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|field| field.name.as_str()).collect();
            let hint = nearest(&field.name, names.iter().copied()).map(|name| format!("did you mean {name}?")).or_else(|| {
                let mut shown: Vec<&str> = names.iter().copied().take(20).collect();
                shown.dedup();
                (!shown.is_empty()).then(|| format!("there are {}", shown.join(", ")))
            });
            let name = match &field.relation {
                Some(relation) => format!("{relation}.{}", field.name),
                None => field.name.clone(),
            };
            (format!("column {name} does not exist"), hint)
        }
        SchemaError::AmbiguousReference { field } => {
            (format!("column {} is ambiguous", field.name), Some("write relation.column".to_string()))
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            (format!("column {qualifier}.{name} appears twice"), Some("give one of them another name with AS".to_string()))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            (format!("column {name} appears twice"), Some("give one of them another name with AS".to_string()))
        }
    }
}

fn kind_of_plan_error(message: &str) -> SqlErrorKind {
    if message.contains("table '") && message.contains("not found") {
        SqlErrorKind::UnknownRelation
    } else {
        SqlErrorKind::Invalid
    }
}

fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some(at) = text.rfind(" at Line: ") else { return (text, None) };
    let rest = &text[at + " at Line: ".len()..];
    let Some((line, column)) = rest.split_once(", Column: ") else { return (text, None) };
    match (line.parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (&text[..at], Some(Location { line, column })),
        _ => (text, None),
    }
}

/// Messages of other libraries begin with a capital; ours don't. Names and acronyms (two capitals) are left alone.
fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_errors_carry_their_place() {
        let error = ParserError::ParserError("Expected: ), found: ; at Line: 3, Column: 17".to_string());
        let start = Position { file: Some("a.sql".into()), line: 1, column: 1 };
        assert_eq!(SqlError::from_parser(error, &start).to_string(), "a.sql:3:17: expected ), found ;");
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_near() {
        assert_eq!(nearest("pickup_datetme", ["dropoff_datetime", "pickup_datetime"]), Some("pickup_datetime"));
        assert_eq!(nearest("zzz", ["dropoff_datetime", "pickup_datetime"]), None);
    }
}
