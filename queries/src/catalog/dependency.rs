//! Who reads whom, and what a DROP takes with it.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{self, ObjectName, Visit, Visitor};
use livelake_dataflow::plan::RelationId;

use super::{Catalog, Relation};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::RelationName;
use crate::statement::RelationKind;

/// The relations that a query names, each once. Names of WITH queries shadow relations only where they are not schema-qualified,
/// so a relation may be counted that is shadowed: harmless, as it only makes DROP more careful.
pub(super) fn direct_reads(catalog: &Catalog, query: &ast::Query) -> Vec<RelationId> {
    struct Names<'a> {
        catalog: &'a Catalog,
        found: Vec<RelationId>,
    }
    impl Names<'_> {
        fn add(&mut self, name: &ObjectName) {
            let Ok(name) = RelationName::from_ast(name, &Position::default()) else { return };
            if let Some(relation) = self.catalog.get(&name)
                && !self.found.contains(&relation.id)
            {
                self.found.push(relation.id);
            }
        }
    }
    impl Visitor for Names<'_> {
        type Break = ();
        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            self.add(name);
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
            if let Some(name) = crate::plan::windowed_relation(factor) {
                self.add(&name);
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names { catalog, found: Vec::new() };
    let _ = query.visit(&mut names);
    names.found
}

impl Catalog {
    /// The relations that a query reads; plain views are seen through to what they read.
    pub fn reads_of(&self, query: &ast::Query) -> Vec<RelationId> {
        let mut open = direct_reads(self, query);
        let mut found = Vec::new();
        while let Some(id) = open.pop() {
            match self.by_id(id) {
                Some(relation) if relation.kind == RelationKind::View => open.extend(&relation.reads),
                _ if found.contains(&id) => {}
                _ => found.push(id),
            }
        }
        found
    }

    /// Relations and sinks whose definition names this one.
    pub fn readers(&self, id: RelationId) -> Vec<Arc<Relation>> {
        self.iter().filter(|relation| relation.reads.contains(&id)).cloned().collect()
    }

    /// Takes a relation out, and with `cascade` all that reads it, readers first.
    pub(super) fn remove(
        &mut self,
        relation: &Arc<Relation>,
        cascade: bool,
        position: &Position,
    ) -> Result<Vec<Arc<Relation>>, SqlError> {
        let mut gone = Vec::new();
        let errors = matches!(relation.kind, RelationKind::Source | RelationKind::MaterializedView)
            .then(|| self.get(&relation.name.errors()).cloned())
            .flatten();
        for target in [Some(Arc::clone(relation)), errors.clone()].into_iter().flatten() {
            // indexes go with what they are on; last, as a view may use one
            let (indexes, mut readers): (Vec<_>, Vec<_>) =
                self.readers(target.id).into_iter().partition(|reader| reader.kind == RelationKind::Index);
            if !cascade && let Some(reader) = readers.first() {
                let message = format!("{} cannot be dropped: {} {} reads it", target.name, reader.kind, reader.name);
                return Err(SqlError::new(SqlErrorKind::InUse, position.clone(), message)
                    .with_hint("drop that first, or say CASCADE to drop all that depends on it"));
            }
            readers.extend(indexes);
            for reader in readers {
                // An earlier reader may have taken this one with it.
                if self.by_id(reader.id).is_some() {
                    gone.extend(self.remove(&reader, cascade, position)?);
                }
            }
        }
        for target in errors.into_iter().chain([Arc::clone(relation)]) {
            self.names.remove(&target.id);
            let map = if target.kind == RelationKind::Sink { &mut self.sinks } else { &mut self.relations };
            map.remove(&target.name);
            gone.push(target);
        }
        Ok(gone)
    }
}
