//! Names of relations: `schema.relation`, with the defaults and spellings that SQL texts use.

use std::fmt;

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use crate::error::{Position, SqlError, SqlErrorKind};

/// The one catalog: tables written to Iceberg are `iceberg.schema.name` to Spark, so that prefix means the same here.
pub const CATALOG: &str = "iceberg";
/// Where names without a schema live.
pub const DEFAULT_SCHEMA: &str = "public";

/// A relation's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RelationName {
    /// The schema (namespace), `public` unless said.
    pub schema: String,
    /// The name in it.
    pub name: String,
}

impl RelationName {
    /// From the two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> RelationName {
        RelationName { schema: schema.into(), name: name.into() }
    }

    /// From `name`, `schema.name` or `iceberg.schema.name` in plain text (no quoting); for names out of paths and options.
    pub fn parse(text: &str) -> RelationName {
        let text = text.strip_prefix("iceberg.").filter(|rest| rest.contains('.')).unwrap_or(text);
        match text.split_once('.') {
            Some((schema, name)) => RelationName::new(schema, name),
            None => RelationName::new(DEFAULT_SCHEMA, text),
        }
    }

    /// From a parsed name: unquoted parts are folded to lower case.
    ///
    /// # Errors
    /// If it has more parts than `iceberg.schema.name`, or names another catalog.
    pub fn from_ast(name: &ObjectName, position: &Position) -> Result<RelationName, SqlError> {
        let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
        let here = name.0.first().and_then(|part| part.as_ident()).map_or_else(
            || position.clone(),
            |ident| {
                if ident.span.start.line == 0 { position.clone() } else { position.at(ident.span.start) }
            },
        );
        match parts.as_slice() {
            [name] => Ok(RelationName::new(DEFAULT_SCHEMA, name)),
            [schema, name] => Ok(RelationName::new(schema, name)),
            [catalog, schema, name] if catalog == CATALOG => Ok(RelationName::new(schema, name)),
            [catalog, _, _] => Err(SqlError::new(SqlErrorKind::UnknownRelation, here, format!("there is no catalog {catalog}"))
                .with_hint("the catalog is called iceberg")),
            _ => Err(SqlError::new(SqlErrorKind::Syntax, here, format!("{name} is not a relation name"))
                .with_hint("write schema.name")),
        }
    }

    /// For DataFusion's APIs.
    pub fn table_reference(&self) -> TableReference {
        TableReference::full(CATALOG, self.schema.as_str(), self.name.as_str())
    }

    /// As SQL, with both parts quoted.
    pub fn quoted(&self) -> String {
        format!("\"{}\".\"{}\"", self.schema.replace('"', "\"\""), self.name.replace('"', "\"\""))
    }

    /// The name of its error relation, if it is a source or a materialized view.
    pub fn errors(&self) -> RelationName {
        RelationName::new(self.schema.as_str(), format!("{}$errors", self.name))
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema != DEFAULT_SCHEMA {
            write!(f, "{}.", self.schema)?;
        }
        write!(f, "{}", self.name)
    }
}

/// PostgreSQL's rule: a quoted name is kept, an unquoted one is lower case.
pub(crate) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}
