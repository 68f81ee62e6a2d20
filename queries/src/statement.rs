//! The statements that livelake takes, typed.
//!
//! Text is read by sqlparser's own tokenizer and parser in PostgreSQL's dialect; what other systems don't have (sources, sinks,
//! SUBSCRIBE, AS OF, …) is read here with that parser's own methods, token by token. Places in errors are places in the file.

mod function;
mod options;
mod parse;
mod relation;
mod request;

/// A query's syntax tree.
pub use datafusion::sql::sqlparser::ast::Query;
pub(crate) use function::positional;
pub use options::{ConnectorOption, Options};
pub use parse::{parse_script, parse_statement};

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use crate::error::Position;
use crate::name::RelationName;

/// One statement of a script.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it asks for.
    pub kind: StatementKind,
    /// Its text as written, without the semicolon.
    pub text: String,
    /// Where it begins.
    pub position: Position,
}

/// What a statement asks for.
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// `CREATE SOURCE`.
    CreateSource(CreateSource),
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `CREATE [MATERIALIZED] VIEW`.
    CreateView(CreateView),
    /// `CREATE SINK`.
    CreateSink(CreateSink),
    /// `CREATE INDEX`.
    CreateIndex(CreateIndex),
    /// `CREATE [OR REPLACE] FUNCTION … LANGUAGE sql`.
    CreateFunction(Box<CreateFunction>),
    /// `DROP FUNCTION`.
    DropFunction(DropFunction),
    /// `CREATE SCHEMA`: schemas exist by being used, so there is nothing to do.
    CreateSchema(String),
    /// `DROP …`.
    Drop(DropRelation),
    /// `SUBSCRIBE`.
    Subscribe(Subscribe),
    /// `COPY (SUBSCRIBE …) TO STDOUT`.
    CopySubscribe(Subscribe),
    /// `SHOW …` of the catalog. (`SHOW` of a setting is [`StatementKind::ShowSetting`].)
    Show(Show),
    /// `SHOW name` of a session setting, as drivers send (`SHOW server_version`).
    ShowSetting(String),
    /// `EXPLAIN [ANALYZE] …`.
    Explain(Explain),
    /// `SHOW EPOCHS [LIMIT n]`.
    ShowEpochs(Option<u64>),
    /// `VACUUM [table]`: looks after an Iceberg table, or all of them.
    Vacuum(Option<RelationName>),
    /// `VERIFY MATERIALIZED VIEW name`.
    Verify(RelationName),
    /// `FLUSH`.
    Flush,
    /// `SELECT`, `VALUES`, `WITH`, `TABLE`.
    Query(SelectQuery),
    /// `INSERT`, as sqlparser has it: see `session::change`.
    Insert(Box<ast::Insert>),
    /// `UPDATE`.
    Update(Box<ast::Update>),
    /// `DELETE`.
    Delete(Box<ast::Delete>),
    /// `TRUNCATE` of tables.
    Truncate(Vec<RelationName>),
    /// `COPY … FROM STDIN` or `COPY … TO STDOUT`.
    Copy(Copy),
    /// `COPY … TO 'file'`.
    CopyToFile(Box<CopyToFile>),
    /// Statements that drivers send and that change nothing here.
    Session(SessionCommand),
}

/// `CREATE INDEX name ON relation (columns)`.
#[derive(Clone, Debug)]
pub struct CreateIndex {
    /// Its name, in the relation's schema.
    pub name: RelationName,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Whose rows it keeps.
    pub on: RelationName,
    /// The columns that it keeps them by.
    pub columns: Vec<String>,
}

/// `CREATE FUNCTION`.
#[derive(Clone, Debug)]
pub struct CreateFunction {
    /// Its name, in lower case; functions have no schema.
    pub name: String,
    /// Whether one of this name is replaced.
    pub or_replace: bool,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// The type of its value.
    pub returns: ast::DataType,
    /// Whether it is NULL if any argument is (`STRICT`).
    pub strict: bool,
    /// Its value, in terms of the parameters.
    pub body: ast::Expr,
}

/// A function's parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name; `$1` and so on name it, too.
    pub name: Option<String>,
    /// Its type.
    pub data_type: ast::DataType,
    /// Its value where a call leaves it out.
    pub default: Option<ast::Expr>,
}

/// `DROP FUNCTION`.
#[derive(Clone, Debug)]
pub struct DropFunction {
    /// Their names.
    pub names: Vec<String>,
    /// Whether it is fine if there is none.
    pub if_exists: bool,
}

/// Which relation a source, table or sink names, and what columns it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name; unquoted names are lower case.
    pub name: String,
    /// Its Arrow type.
    pub data_type: DataType,
    /// Its type as written.
    pub sql_type: String,
    /// Whether NULL is refused (NOT NULL, or part of the primary key).
    pub not_null: bool,
    /// `DEFAULT`, as SQL text.
    pub default: Option<String>,
    /// `COMMENT '…'`.
    pub comment: Option<String>,
    /// Where it is declared.
    pub position: Position,
}

/// What is declared between the parentheses of a source or table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// In order of declaration; empty where the format carries the schema.
    pub columns: Vec<Column>,
    /// Indices of the primary key's columns, in the key's order.
    pub key: Vec<usize>,
    /// Conditions of CHECK.
    pub checks: Vec<Check>,
}

/// A CHECK.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The constraint's name, or one made up from the relation's, as PostgreSQL does.
    pub name: String,
    /// The condition, as SQL text.
    pub condition: String,
    /// Where it is declared.
    pub position: Position,
}

/// `CREATE SOURCE`.
#[derive(Clone, Debug)]
pub struct CreateSource {
    /// Its name.
    pub name: RelationName,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Declared columns.
    pub columns: Columns,
    /// `WITH (…)`.
    pub options: Options,
}

/// `CREATE TABLE`.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: RelationName,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Declared columns.
    pub columns: Columns,
}

/// `CREATE [MATERIALIZED] VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Its name.
    pub name: RelationName,
    /// Whether its rows are maintained, or it is just a name for a query.
    pub materialized: bool,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Names for its columns, if given: `CREATE VIEW v (a, b) AS …`.
    pub columns: Vec<String>,
    /// What it computes.
    pub query: Box<Query>,
}

/// `CREATE SINK`.
#[derive(Clone, Debug)]
pub struct CreateSink {
    /// Its name.
    pub name: RelationName,
    /// Whether an existing one is fine.
    pub if_not_exists: bool,
    /// Where its rows come from.
    pub from: RelationName,
    /// Where `from` is written.
    pub from_position: Position,
    /// `WITH (…)`.
    pub options: Options,
}

/// What can be created and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// A source.
    Source,
    /// A source's `name$errors`.
    Errors,
    /// A table.
    Table,
    /// A view that is only a name for a query.
    View,
    /// A maintained view.
    MaterializedView,
    /// A sink.
    Sink,
    /// The rows of a table or materialized view once more, by other columns.
    Index,
}

/// `DROP`.
#[derive(Clone, Debug)]
pub struct DropRelation {
    /// What it must be.
    pub kind: RelationKind,
    /// Which.
    pub names: Vec<RelationName>,
    /// Whether a missing one is fine.
    pub if_exists: bool,
    /// Whether all that depends on it goes too.
    pub cascade: bool,
}

/// `SUBSCRIBE`.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// To what.
    pub target: SubscribeTarget,
    /// Columns of `ENVELOPE UPSERT (KEY (…))`; absent: plain changes. An empty list means the relation's own key.
    pub upsert_key: Option<Vec<String>>,
    /// Whether the rows of now come first (true unless said).
    pub snapshot: bool,
    /// Whether progress marks are sent (true unless said).
    pub progress: bool,
    /// Where to begin.
    pub as_of: Option<u64>,
}

/// What is subscribed to.
#[derive(Clone, Debug)]
pub enum SubscribeTarget {
    /// A relation by name.
    Relation(RelationName),
    /// A query, maintained for as long as the subscription lasts.
    Query(Box<Query>),
}

/// `SHOW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// All relations of a kind.
    Relations(RelationKind),
    /// The columns of a relation.
    Columns(RelationName),
    /// The statement that would create a relation.
    Create(RelationName),
    /// All schemas.
    Schemas,
    /// All functions that users wrote.
    Functions,
}

/// `EXPLAIN`.
#[derive(Clone, Debug)]
pub struct Explain {
    /// Whether to run it and say what was measured.
    pub analyze: bool,
    /// What to explain.
    pub target: ExplainTarget,
}

/// What is explained.
#[derive(Clone, Debug)]
pub enum ExplainTarget {
    /// A view by name: `EXPLAIN VIEW name`, `EXPLAIN MATERIALIZED VIEW name`.
    Relation(RelationName),
    /// A query, as it would be answered once.
    Query(SelectQuery),
    /// A statement that would create a view: as it would be maintained.
    View(Box<CreateView>),
}

/// The moment that a query asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// `AS OF t`: microseconds since 1970 UTC.
    Timestamp(u64),
    /// `AS OF EPOCH n`.
    Epoch(u64),
}

/// `SELECT … [AS OF t]`.
#[derive(Clone, Debug)]
pub struct SelectQuery {
    /// The query.
    pub query: Box<Query>,
    /// At which timestamp (microseconds since 1970 UTC); absent: the newest complete one.
    pub as_of: Option<AsOf>,
}

/// `COPY`.
#[derive(Clone, Debug)]
pub struct Copy {
    /// From or to what.
    pub target: CopyTarget,
    /// Into the table (`FROM STDIN`) or out of it.
    pub direction: CopyDirection,
    /// `FORMAT`.
    pub format: CopyFormat,
    /// Between fields: tab for text, comma for CSV, unless said.
    pub delimiter: char,
    /// Whether there is a line of column names.
    pub header: bool,
    /// What stands for NULL: `\N` for text, nothing for CSV, unless said.
    pub null: String,
}

/// `COPY … TO 'file'`: a file that the lake writes.
#[derive(Clone, Debug)]
pub struct CopyToFile {
    /// The rows.
    pub query: SelectQuery,
    /// The file's name.
    pub file: String,
    /// `FORMAT`; absent: what the name ends in.
    pub format: Option<String>,
}

/// What is copied.
#[derive(Clone, Debug)]
pub enum CopyTarget {
    /// A relation, and which of its columns (empty: all).
    Relation(RelationName, Vec<String>),
    /// A query's rows.
    Query(SelectQuery),
}

/// Which way a COPY goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// `FROM STDIN`.
    In,
    /// `TO STDOUT`.
    Out,
}

/// How COPY writes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format.
    Text,
    /// CSV.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// Statements that drivers send at the start and end of things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SET name = value`, with the name as written.
    Set(String),
    /// Others of which nothing is to be done; the tag is what the answer names (`DISCARD ALL`, `SAVEPOINT`, …).
    Other(String),
}

impl RelationKind {
    /// As written in SQL and messages, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            RelationKind::Source => "source",
            RelationKind::Errors => "error relation",
            RelationKind::Table => "table",
            RelationKind::View => "view",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::Sink => "sink",
            RelationKind::Index => "index",
        }
    }
}

impl std::fmt::Display for RelationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
