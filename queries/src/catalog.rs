//! What exists in the lake: sources, tables, views, sinks, their columns, keys and who reads whom.
//!
//! A catalog is a value: cloning it is cheap, queries plan against the clone they were given, and a statement that fails
//! leaves nothing behind. It holds no connection to the engine; ids are given out here and used there.

mod dependency;
mod function;
mod relation;
mod show;

pub use function::Function;
pub use relation::{Detail, ERROR_COLUMNS, METADATA_COLUMNS, Relation};

use std::collections::BTreeMap;
use std::sync::Arc;

use livelake_dataflow::plan::RelationId;

use crate::error::{Position, SqlError, SqlErrorKind, nearest};
use crate::name::RelationName;
use crate::plan::{self, PlannedQuery};
use crate::statement::{
    CreateIndex, CreateSink, CreateSource, CreateTable, CreateView, DropRelation, RelationKind, Statement, StatementKind,
};

/// All relations of a lake.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    relations: BTreeMap<RelationName, Arc<Relation>>,
    /// Sinks have names of their own: a sink is mostly called like the view that it writes.
    sinks: BTreeMap<RelationName, Arc<Relation>>,
    names: BTreeMap<RelationId, (RelationName, bool)>,
    last_id: u64,
    functions: BTreeMap<String, Arc<Function>>,
}

/// What a CREATE did.
#[derive(Clone, Debug)]
pub enum Created {
    /// There is a new relation.
    New(Arc<Relation>),
    /// IF NOT EXISTS, and it did: nothing was done.
    Existed(Arc<Relation>),
    /// There is a function of this name, new or as it was.
    Function(String),
}

impl Catalog {
    /// An empty one.
    pub fn new() -> Catalog {
        Catalog::default()
    }

    /// Takes a CREATE statement: plans it, gives it an id and adds it (a source or a materialized view gets its `name$errors`, too).
    ///
    /// # Errors
    /// If the name is taken, it does not plan, or (materialized views) it cannot be maintained incrementally.
    pub fn create(&mut self, statement: &Statement) -> Result<Created, SqlError> {
        match &statement.kind {
            StatementKind::CreateSource(source) => self.create_source(source, statement),
            StatementKind::CreateTable(table) => self.create_table(table, statement),
            StatementKind::CreateView(view) => self.create_view(view, statement),
            StatementKind::CreateSink(sink) => self.create_sink(sink, statement),
            StatementKind::CreateIndex(index) => self.create_index(index, statement),
            StatementKind::CreateFunction(function) => self.create_function(function, statement),
            _ => Err(SqlError::new(
                SqlErrorKind::Unsupported,
                statement.position.clone(),
                "a lake's files hold CREATE statements only",
            )
            .with_hint("send other statements to the running lake")),
        }
    }

    /// Takes a DROP: what goes, in an order in which the engine can drop it (readers before what they read).
    ///
    /// # Errors
    /// If it does not exist, is of another kind, or others depend on it and CASCADE is not said. Nothing is dropped then.
    pub fn drop_relation(&mut self, request: &DropRelation, position: &Position) -> Result<Vec<Arc<Relation>>, SqlError> {
        let mut after = self.clone();
        let mut dropped = Vec::new();
        for name in &request.names {
            let relation = match after.find(name, request.kind == RelationKind::Sink) {
                Some(relation) => relation,
                None if request.if_exists => continue,
                None => return Err(after.unknown(name, position.clone())),
            };
            if relation.kind != request.kind {
                let message = format!("{name} is a {}, not a {}", relation.kind, request.kind);
                return Err(SqlError::new(SqlErrorKind::Invalid, position.clone(), message)
                    .with_hint(format!("DROP {} {name}", relation.kind.as_str().to_uppercase())));
            }
            dropped.extend(after.remove(&relation, request.cascade, position)?);
        }
        *self = after;
        Ok(dropped)
    }

    /// A source, table or view by name (not a sink, and not an index: that is no relation to ask).
    pub fn get(&self, name: &RelationName) -> Option<&Arc<Relation>> {
        self.relations.get(name).filter(|relation| relation.kind != RelationKind::Index)
    }

    /// The indexes of a relation, in the order of their creation.
    pub fn indexes(&self, id: RelationId) -> Vec<Arc<Relation>> {
        self.of_kind(RelationKind::Index).filter(|index| index.reads.contains(&id)).cloned().collect()
    }

    /// A sink by name.
    pub fn sink(&self, name: &RelationName) -> Option<&Arc<Relation>> {
        self.sinks.get(name)
    }

    /// Any relation by id.
    pub fn by_id(&self, id: RelationId) -> Option<&Arc<Relation>> {
        let (name, sink) = self.names.get(&id)?;
        if *sink { self.sinks.get(name) } else { self.relations.get(name) }
    }

    /// A relation that must exist.
    ///
    /// # Errors
    /// If it does not, with the nearest name.
    pub fn expect(&self, name: &RelationName, position: &Position) -> Result<&Arc<Relation>, SqlError> {
        self.get(name).ok_or_else(|| self.unknown(name, position.clone()))
    }

    /// All relations and sinks in the order of their creation, which is an order in which they can be created.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.names.keys().filter_map(|id| self.by_id(*id))
    }

    /// All of a kind, in the order of their creation.
    pub fn of_kind(&self, kind: RelationKind) -> impl Iterator<Item = &Arc<Relation>> {
        self.iter().filter(move |relation| relation.kind == kind)
    }

    /// All schemas that have a relation, and `public`.
    pub fn schemas(&self) -> Vec<String> {
        let mut schemas: Vec<String> = self.relations.keys().map(|name| name.schema.clone()).collect();
        schemas.push(crate::name::DEFAULT_SCHEMA.to_string());
        schemas.sort();
        schemas.dedup();
        schemas
    }

    /// The statements that make this catalog, in an order that can be run.
    pub fn to_statements(&self) -> Vec<String> {
        let relations = self.iter().filter(|relation| relation.kind != RelationKind::Errors);
        let functions = self.functions().map(|function| &function.sql);
        functions.chain(relations.map(|relation| &relation.sql)).map(|sql| format!("{sql};")).collect()
    }

    /// An error about a name that does not exist, with the nearest one.
    pub fn unknown(&self, name: &RelationName, position: Position) -> SqlError {
        let candidates: Vec<String> = self.relations.keys().map(RelationName::to_string).collect();
        let hint = nearest(&name.to_string(), candidates.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
        let same_name = || {
            let other = self.relations.keys().find(|other| other.name == name.name)?;
            Some(format!("did you mean {other}?"))
        };
        SqlError::new(SqlErrorKind::UnknownRelation, position, format!("relation {name} does not exist"))
            .with_optional_hint(same_name().or(hint))
    }

    fn find(&self, name: &RelationName, sink: bool) -> Option<Arc<Relation>> {
        if sink { self.sinks.get(name) } else { self.relations.get(name) }.cloned()
    }

    fn next_id(&mut self) -> RelationId {
        self.last_id += 1;
        RelationId(self.last_id)
    }

    fn add(&mut self, relation: Relation) -> Arc<Relation> {
        let relation = Arc::new(relation);
        let sink = relation.kind == RelationKind::Sink;
        self.names.insert(relation.id, (relation.name.clone(), sink));
        let map = if sink { &mut self.sinks } else { &mut self.relations };
        map.insert(relation.name.clone(), Arc::clone(&relation));
        relation
    }

    /// The relation of that name if IF NOT EXISTS makes it do; an error if the name is taken.
    fn existing(
        &self,
        name: &RelationName,
        kind: RelationKind,
        if_not_exists: bool,
        position: &Position,
    ) -> Result<Option<Arc<Relation>>, SqlError> {
        match self.find(name, kind == RelationKind::Sink) {
            None => Ok(None),
            Some(found) if if_not_exists && found.kind == kind => Ok(Some(found)),
            Some(found) => {
                let message = format!("{name} exists already: it is a {}", found.kind);
                Err(SqlError::new(SqlErrorKind::Exists, position.clone(), message)
                    .with_optional_hint(found.position.file.as_ref().map(|_| format!("it is created at {}", found.position))))
            }
        }
    }

    fn create_source(&mut self, source: &CreateSource, statement: &Statement) -> Result<Created, SqlError> {
        if let Some(found) = self.existing(&source.name, RelationKind::Source, source.if_not_exists, &statement.position)? {
            return Ok(Created::Existed(found));
        }
        let relation = Relation::source(self.next_id(), source, statement)?;
        plan::check_expressions(&relation)?;
        self.add_with_errors(relation)
    }

    /// Adds a relation and the one of its errors, if it has errors.
    fn add_with_errors(&mut self, relation: Relation) -> Result<Created, SqlError> {
        let errors = Relation::errors(RelationId(self.last_id + 1), &relation);
        if let Some(errors) = &errors {
            self.existing(&errors.name, errors.kind, false, &relation.position)?;
            self.next_id();
        }
        let relation = self.add(relation);
        errors.into_iter().for_each(|errors| drop(self.add(errors)));
        Ok(Created::New(relation))
    }

    fn create_table(&mut self, table: &CreateTable, statement: &Statement) -> Result<Created, SqlError> {
        if let Some(found) = self.existing(&table.name, RelationKind::Table, table.if_not_exists, &statement.position)? {
            return Ok(Created::Existed(found));
        }
        let relation = Relation::table(self.next_id(), table, statement);
        plan::check_expressions(&relation)?;
        Ok(Created::New(self.add(relation)))
    }

    fn create_view(&mut self, view: &CreateView, statement: &Statement) -> Result<Created, SqlError> {
        let kind = if view.materialized { RelationKind::MaterializedView } else { RelationKind::View };
        if let Some(found) = self.existing(&view.name, kind, view.if_not_exists, &statement.position)? {
            return Ok(Created::Existed(found));
        }
        let planned = self.plan(view, &statement.position)?;
        let reads = dependency::direct_reads(self, &view.query);
        let relation = Relation::view(self.next_id(), view, planned, reads, statement);
        self.add_with_errors(relation)
    }

    /// Plans a view against this catalog, without adding it.
    pub(crate) fn plan(&self, view: &CreateView, position: &Position) -> Result<PlannedQuery, SqlError> {
        let catalog = Arc::new(self.clone());
        let planned = plan::plan_view(&catalog, &view.query, &view.columns, position)?;
        if view.materialized {
            planned.not_maintainable.clone().map_or(Ok(()), Err)?;
        }
        Ok(planned)
    }

    fn create_index(&mut self, index: &CreateIndex, statement: &Statement) -> Result<Created, SqlError> {
        if let Some(found) = self.existing(&index.name, RelationKind::Index, index.if_not_exists, &statement.position)? {
            return Ok(Created::Existed(found));
        }
        let on = Arc::clone(self.expect(&index.on, &statement.position)?);
        if !matches!(on.kind, RelationKind::Table | RelationKind::MaterializedView) {
            let message = format!("{} is a {}: an index is on a table or a materialized view", on.name, on.kind);
            return Err(SqlError::new(SqlErrorKind::Unsupported, statement.position.clone(), message));
        }
        let mut key = Vec::with_capacity(index.columns.len());
        for column in &index.columns {
            let known = on.visible_schema().index_of(column).map_err(|_| {
                let message = format!("column {column} of {} does not exist", on.name);
                SqlError::new(SqlErrorKind::UnknownColumn, statement.position.clone(), message)
            })?;
            if !key.contains(&known) {
                key.push(known);
            }
        }
        let relation = Relation::index(self.next_id(), index, &on, key, statement);
        Ok(Created::New(self.add(relation)))
    }

    fn create_sink(&mut self, sink: &CreateSink, statement: &Statement) -> Result<Created, SqlError> {
        if let Some(found) = self.existing(&sink.name, RelationKind::Sink, sink.if_not_exists, &statement.position)? {
            return Ok(Created::Existed(found));
        }
        let from = Arc::clone(self.expect(&sink.from, &sink.from_position)?);
        if let Detail::View(view) = &from.detail {
            // A plain view is maintained for its sink's sake, so it must be one that can be.
            if let Some(error) = &view.planned.not_maintainable {
                let position = sink.from_position.clone();
                return Err(SqlError { position, message: format!("{}: {}", from.name, error.message), ..error.clone() });
            }
        }
        let relation = Relation::sink(self.next_id(), sink, &from, statement);
        Ok(Created::New(self.add(relation)))
    }
}

#[cfg(test)]
mod tests;
