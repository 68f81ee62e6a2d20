//! Which columns anybody reads: decoders skip the rest, and the engine stores no more.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use livelake_dataflow::plan::RelationId;

use super::PlannedQuery;
use crate::catalog::{Catalog, Detail, Relation};
use crate::provider::relation_of;

/// Which columns of each base relation the engine stores, as ascending indices into the catalog's schema: the engine's schema
/// of the relation is the projection of the catalog's onto them. A relation that is not mentioned is stored whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredColumns(pub BTreeMap<RelationId, Vec<usize>>);

impl StoredColumns {
    /// The stored columns of a relation, in the engine's order.
    pub fn of(&self, relation: &Relation) -> Vec<usize> {
        // an index has its relation's rows
        let id = match relation.detail {
            Detail::Index { of } => of,
            _ => relation.id,
        };
        self.0.get(&id).cloned().unwrap_or_else(|| (0..relation.schema.fields().len()).collect())
    }

    /// The relation's schema in the engine.
    pub fn schema(&self, relation: &Relation) -> arrow::datatypes::SchemaRef {
        let fields: Vec<_> = self.of(relation).into_iter().map(|index| relation.schema.field(index).clone()).collect();
        std::sync::Arc::new(arrow::datatypes::Schema::new(fields))
    }

    /// Where the relation's key is among the stored columns.
    pub fn key(&self, relation: &Relation) -> Vec<usize> {
        let stored = self.of(relation);
        relation.key.iter().filter_map(|column| stored.iter().position(|s| s == column)).collect()
    }

    /// Whether all columns that `other` wants are stored here: if not, running sources would have to be read again.
    pub fn covers(&self, other: &StoredColumns) -> bool {
        other.0.iter().all(|(id, wanted)| match self.0.get(id) {
            Some(stored) => wanted.iter().all(|column| stored.contains(column)),
            None => true,
        })
    }
}

/// The columns of base relations that some relations read, directly or through plain views: views by their plans, sinks and
/// base relations (that somebody wants whole) all visible columns. Keys are always among them. Every source and table of the
/// catalog is mentioned in the result, also one that nobody reads.
pub fn columns_read(catalog: &Catalog, readers: &[RelationId]) -> StoredColumns {
    let mut read: BTreeMap<RelationId, BTreeSet<usize>> = BTreeMap::new();
    for relation in catalog.iter().filter(|relation| relation.is_base()) {
        read.insert(relation.id, relation.key.iter().copied().collect());
    }
    for reader in readers.iter().filter_map(|id| catalog.by_id(*id)) {
        let relation = match &reader.detail {
            Detail::Sink { from, .. } => catalog.by_id(*from),
            Detail::Index { of } => catalog.by_id(*of),
            _ => Some(reader),
        };
        match relation {
            Some(relation) if relation.is_base() => {
                read.entry(relation.id).or_default().extend(0..relation.visible);
            }
            Some(relation) => {
                if let Detail::View(view) = &relation.detail {
                    scanned(&view.planned.logical, &mut read);
                }
            }
            None => {}
        }
    }
    let stored = read.into_iter().map(|(id, mut columns)| {
        if columns.is_empty() {
            columns.insert(cheapest_column(catalog, id));
        }
        (id, columns.into_iter().collect())
    });
    StoredColumns(stored.collect())
}

/// The columns of base relations that a query outside of the catalog reads (`SUBSCRIBE (query)`): to be compared with what is
/// stored, by [`StoredColumns::covers`].
pub fn query_columns(planned: &PlannedQuery) -> StoredColumns {
    let mut read = BTreeMap::new();
    scanned(&planned.logical, &mut read);
    StoredColumns(read.into_iter().map(|(id, columns)| (id, columns.into_iter().collect())).collect())
}

/// Adds the columns that a plan scans of base relations.
fn scanned(plan: &LogicalPlan, read: &mut BTreeMap<RelationId, BTreeSet<usize>>) {
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(relation) = relation_of(&scan.source)
            && relation.is_base()
        {
            let columns = read.entry(relation.id).or_default();
            match &scan.projection {
                Some(projection) => columns.extend(projection.iter().copied()),
                None => columns.extend(0..relation.visible),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

/// A relation that is only counted still has rows, so one column is stored: a fixed-width one if there is any.
fn cheapest_column(catalog: &Catalog, id: RelationId) -> usize {
    let Some(relation) = catalog.by_id(id) else { return 0 };
    let widths = relation.schema.fields()[..relation.visible].iter().map(|field| field.data_type().primitive_width());
    widths.enumerate().min_by_key(|(_, width)| width.unwrap_or(usize::MAX)).map_or(0, |(index, _)| index)
}
