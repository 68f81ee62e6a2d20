//! GROUPING SETS, ROLLUP and CUBE: one reduce for each set of keys over the same rows, put together.
//!
//! Each reduce fills the keys that are not in its set with NULL and says in one more column which those are, for `grouping()`: one bit
//! a key, the first key's highest, as DataFusion numbers them.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Expr, GroupingSet};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use livelake_dataflow::plan::Plan;

use super::aggregate::{Call, grouped};
use super::{map, unsupported};

/// More keys than this in a CUBE make more groups than anybody wants to keep.
const CUBE_KEYS_MAX: usize = 10;

/// The keys of each set, as positions among all keys; nothing if this is a plain GROUP BY.
///
/// # Errors
/// A CUBE of too many keys; a set that is there twice.
pub(super) fn sets(group: &[Expr]) -> Result<Option<Vec<Vec<usize>>>> {
    let [Expr::GroupingSet(sets)] = group else { return Ok(None) };
    let keys = grouping_set_to_exprlist(group)?;
    let positions = |set: &[Expr]| -> Vec<usize> {
        let mut positions: Vec<usize> = set.iter().filter_map(|expr| keys.iter().position(|key| *key == expr)).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    };
    let sets: Vec<Vec<usize>> = match sets {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| positions(set)).collect(),
        GroupingSet::Rollup(keys) => (0..=keys.len()).rev().map(|count| positions(&keys[..count])).collect(),
        GroupingSet::Cube(keys) if keys.len() > CUBE_KEYS_MAX => {
            return Err(unsupported(
                &format!("CUBE of more than {CUBE_KEYS_MAX} keys"),
                Some("name the GROUPING SETS that you need"),
            ));
        }
        GroupingSet::Cube(all) => (0..1_usize << all.len())
            .map(|bits| {
                let set: Vec<Expr> = (0..all.len()).filter(|at| bits >> at & 1 == 0).map(|at| all[at].clone()).collect();
                positions(&set)
            })
            .collect(),
    };
    // DataFusion's own answer adds the rows of both up, so there would be nothing to compare the view with
    if (1..sets.len()).any(|at| sets[..at].contains(&sets[at])) {
        return Err(unsupported("a grouping set that is there twice", Some("name it once")));
    }
    Ok(Some(sets))
}

/// The groups of all sets. `keys` are the input's columns that are grouped by, `everything` one that is the same in all rows, for the
/// set without keys: it has a row only while there are rows, as in DataFusion.
///
/// # Errors
/// A type without NULL.
pub(super) fn union(
    input: &Plan,
    keys: &[usize],
    everything: usize,
    sets: &[Vec<usize>],
    calls: &[Call],
    schema: &SchemaRef,
) -> Result<Plan> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut inputs = Vec::with_capacity(sets.len());
    for set in sets {
        let group: Vec<usize> = if set.is_empty() { vec![everything] } else { set.iter().map(|at| keys[*at]).collect() };
        let input_schema = input.schema();
        let key_fields = group.iter().map(|column| input_schema.field(*column).clone().with_nullable(true));
        let aggregate_fields = schema.fields()[keys.len() + 1..].iter().map(|field| field.as_ref().clone());
        let schema_of_set = Arc::new(Schema::new(key_fields.chain(aggregate_fields).collect::<Vec<_>>()));
        let plan = grouped(input, group.clone(), calls, schema_of_set)?;
        let mut projection: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(names.len());
        let mut missing = 0_u64;
        for at in 0..keys.len() {
            let place = set.iter().position(|known| *known == at);
            missing = missing << 1 | u64::from(place.is_none());
            match place {
                Some(place) => projection.extend(map::columns(&plan, [place])),
                None => projection.push(Arc::new(Literal::new(ScalarValue::try_from(schema.field(at).data_type())?))),
            }
        }
        let number = ScalarValue::UInt64(Some(missing)).cast_to(schema.field(keys.len()).data_type())?;
        projection.push(Arc::new(Literal::new(number)));
        projection.extend(map::columns(&plan, group.len()..group.len() + calls.len()));
        inputs.push(map::typed(map::map(plan, Vec::new(), projection, &names)?, schema)?);
    }
    Ok(Plan::Union { inputs })
}
