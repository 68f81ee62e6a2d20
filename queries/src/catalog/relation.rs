//! One relation of the catalog: its columns, its key, and what it is made of.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use livelake_dataflow::errors::error_schema;
use livelake_dataflow::plan::RelationId;

use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::RelationName;
use crate::plan::PlannedQuery;
use crate::statement::{
    Column, Columns, CreateIndex, CreateSink, CreateSource, CreateTable, CreateView, Options, RelationKind, Statement,
};
use crate::types::{timestamp, timestamptz};

/// A relation as the catalog knows it.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its id, in the engine too (a plain view's and a sink's is not used there unless the caller does).
    pub id: RelationId,
    /// Its name.
    pub name: RelationName,
    /// What it is.
    pub kind: RelationKind,
    /// All its columns: the declared ones, then (sources) the hidden metadata columns.
    pub schema: SchemaRef,
    /// How many of the columns `*` stands for; the others are had by name only.
    pub visible: usize,
    /// Columns that identify a row. Empty if there are none but the whole row.
    pub key: Vec<usize>,
    /// Relations named in its definition (for sinks: the one it writes), plain views among them.
    pub reads: Vec<RelationId>,
    /// The statement that made it, as written (`${NAME}` not replaced), without semicolon.
    pub sql: String,
    /// Where that stands.
    pub position: Position,
    /// What is particular to its kind.
    pub detail: Detail,
}

/// What is particular to a kind of relation.
#[derive(Clone, Debug)]
pub enum Detail {
    /// A source.
    Source {
        /// What was declared.
        columns: Columns,
        /// Its options, `${NAME}` not replaced: see [`Options::resolve`].
        options: Options,
    },
    /// The rows that a source could not take.
    Errors {
        /// Which source.
        source: RelationId,
    },
    /// The errors of a materialized view's present input.
    ViewErrors {
        /// Which view.
        view: RelationId,
    },
    /// A table.
    Table {
        /// What was declared.
        columns: Columns,
    },
    /// A view, plain or materialized.
    View(Box<ViewDetail>),
    /// An index.
    Index {
        /// Whose rows it keeps.
        of: RelationId,
    },
    /// A sink.
    Sink {
        /// The relation that it writes.
        from: RelationId,
        /// Its options, `${NAME}` not replaced.
        options: Options,
    },
}

/// What is particular to views.
#[derive(Clone, Debug)]
pub struct ViewDetail {
    /// Its query as parsed.
    pub query: Box<ast::Query>,
    /// Names given to its columns, if any.
    pub columns: Vec<String>,
    /// Its plan, with plain views inlined.
    pub planned: PlannedQuery,
}

/// Hidden columns of every source, NULL where they mean nothing.
pub const METADATA_COLUMNS: [&str; 9] =
    ["_op", "_source_ts", "_lsn", "_tx_id", "_topic", "_partition", "_offset", "_file", "_row_number"];

/// Columns of every source's `name$errors`; a materialized view's has those of [`error_schema`].
pub const ERROR_COLUMNS: [&str; 5] = ["source", "position", "payload", "reason", "at"];

impl Relation {
    /// The columns that `*` stands for.
    pub fn visible_schema(&self) -> SchemaRef {
        if self.visible == self.schema.fields().len() {
            return Arc::clone(&self.schema);
        }
        Arc::new(Schema::new(self.schema.fields()[..self.visible].to_vec()))
    }

    /// Whether its rows come from outside: a source, its errors, or a table.
    pub fn is_base(&self) -> bool {
        matches!(self.detail, Detail::Source { .. } | Detail::Errors { .. } | Detail::Table { .. })
    }

    /// The comments of declared columns, by their names.
    pub fn comments(&self) -> impl Iterator<Item = (&str, &str)> {
        let declared = match &self.detail {
            Detail::Source { columns, .. } | Detail::Table { columns } => columns.columns.as_slice(),
            _ => &[],
        };
        declared.iter().filter_map(|column| Some((column.name.as_str(), column.comment.as_deref()?)))
    }

    /// The names of the key's columns.
    pub fn key_names(&self) -> Vec<&str> {
        self.key.iter().map(|index| self.schema.field(*index).name().as_str()).collect()
    }

    /// What `SHOW CREATE` says: the statement, and the key where it was derived.
    pub fn show_create(&self) -> String {
        let derived = self.kind == RelationKind::MaterializedView || self.kind == RelationKind::View;
        match (derived, self.key.is_empty()) {
            (false, _) => format!("{};", self.sql),
            (true, true) => format!("{};\n-- key: the whole row", self.sql),
            (true, false) => format!("{};\n-- key: {}", self.sql, self.key_names().join(", ")),
        }
    }

    pub(super) fn source(id: RelationId, source: &CreateSource, statement: &Statement) -> Result<Relation, SqlError> {
        let declared = &source.columns;
        if declared.columns.is_empty() {
            let message = format!("the columns of {} are not known", source.name);
            return Err(SqlError::new(SqlErrorKind::Invalid, statement.position.clone(), message)
                .with_hint("declare them: CREATE SOURCE name (column type, …) WITH (…)"));
        }
        let envelope = source.options.one_of("envelope", &["upsert", "append", "events"])?;
        if envelope == Some("upsert") && declared.key.is_empty() {
            let position =
                source.options.entry("envelope").map_or_else(|| statement.position.clone(), |entry| entry.position.clone());
            return Err(SqlError::new(SqlErrorKind::InvalidOption, position, "envelope upsert needs a primary key")
                .with_hint("declare PRIMARY KEY (…), or say envelope = 'append'"));
        }
        // The key identifies rows only where the engine replaces by it.
        let key = if matches!(envelope, None | Some("upsert")) { declared.key.clone() } else { Vec::new() };
        let mut fields = declared_fields(&declared.columns);
        let visible = fields.len();
        fields.extend(metadata_fields().into_iter().filter(|field| declared.columns.iter().all(|c| c.name != *field.name())));
        Ok(Relation {
            id,
            name: source.name.clone(),
            kind: RelationKind::Source,
            schema: Arc::new(Schema::new(fields)),
            visible,
            key,
            reads: Vec::new(),
            sql: statement.text.clone(),
            position: statement.position.clone(),
            detail: Detail::Source { columns: declared.clone(), options: source.options.clone() },
        })
    }

    /// The error relation that a source or a materialized view has; none for others.
    pub(super) fn errors(id: RelationId, of: &Relation) -> Option<Relation> {
        let (schema, detail): (SchemaRef, Detail) = match of.kind {
            RelationKind::Source => {
                let types = [DataType::Utf8, DataType::Utf8, DataType::Utf8, DataType::Utf8, timestamptz()];
                let fields = ERROR_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true));
                (Arc::new(Schema::new(fields.collect::<Vec<_>>())), Detail::Errors { source: of.id })
            }
            RelationKind::MaterializedView => (error_schema(), Detail::ViewErrors { view: of.id }),
            _ => return None,
        };
        Some(Relation {
            id,
            name: of.name.errors(),
            kind: RelationKind::Errors,
            visible: schema.fields().len(),
            schema,
            key: Vec::new(),
            reads: Vec::new(),
            sql: String::new(),
            position: of.position.clone(),
            detail,
        })
    }

    pub(super) fn table(id: RelationId, table: &CreateTable, statement: &Statement) -> Relation {
        let fields = declared_fields(&table.columns.columns);
        Relation {
            id,
            name: table.name.clone(),
            kind: RelationKind::Table,
            visible: fields.len(),
            schema: Arc::new(Schema::new(fields)),
            key: table.columns.key.clone(),
            reads: Vec::new(),
            sql: statement.text.clone(),
            position: statement.position.clone(),
            detail: Detail::Table { columns: table.columns.clone() },
        }
    }

    pub(super) fn view(
        id: RelationId,
        view: &CreateView,
        planned: PlannedQuery,
        reads: Vec<RelationId>,
        statement: &Statement,
    ) -> Relation {
        let schema = Arc::clone(&planned.schema);
        Relation {
            id,
            name: view.name.clone(),
            kind: if view.materialized { RelationKind::MaterializedView } else { RelationKind::View },
            visible: schema.fields().len(),
            schema,
            key: planned.key.clone(),
            reads,
            sql: statement.text.clone(),
            position: statement.position.clone(),
            detail: Detail::View(Box::new(ViewDetail { query: view.query.clone(), columns: view.columns.clone(), planned })),
        }
    }

    pub(super) fn index(id: RelationId, index: &CreateIndex, of: &Relation, key: Vec<usize>, statement: &Statement) -> Relation {
        Relation {
            id,
            name: index.name.clone(),
            kind: RelationKind::Index,
            schema: Arc::clone(&of.schema),
            visible: of.visible,
            key,
            reads: vec![of.id],
            sql: statement.text.clone(),
            position: statement.position.clone(),
            detail: Detail::Index { of: of.id },
        }
    }

    pub(super) fn sink(id: RelationId, sink: &CreateSink, from: &Relation, statement: &Statement) -> Relation {
        let schema = from.visible_schema();
        Relation {
            id,
            name: sink.name.clone(),
            kind: RelationKind::Sink,
            visible: schema.fields().len(),
            schema,
            key: from.key.clone(),
            reads: vec![from.id],
            sql: statement.text.clone(),
            position: statement.position.clone(),
            detail: Detail::Sink { from: from.id, options: sink.options.clone() },
        }
    }
}

fn declared_fields(columns: &[Column]) -> Vec<Field> {
    columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), !column.not_null)).collect()
}

fn metadata_fields() -> Vec<Field> {
    let types = [
        DataType::Utf8,
        timestamptz(),
        DataType::Int64,
        DataType::Int64,
        DataType::Utf8,
        DataType::Int32,
        DataType::Int64,
        DataType::Utf8,
        DataType::Int64,
    ];
    METADATA_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true)).collect()
}

impl Columns {
    /// Columns as a format's own schema has them (Parquet, CSV with inferred types), for sources that declare none.
    pub fn from_schema(schema: &Schema) -> Columns {
        let columns = schema.fields().iter().map(|field| {
            let data_type = match field.data_type() {
                DataType::Timestamp(_, None) => timestamp(),
                other => crate::types::column_type(other),
            };
            Column {
                name: field.name().clone(),
                sql_type: data_type.to_string(),
                data_type,
                not_null: false,
                default: None,
                comment: None,
                position: Position::default(),
            }
        });
        Columns { columns: columns.collect(), key: Vec::new(), checks: Vec::new() }
    }
}
