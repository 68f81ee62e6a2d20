//! Which columns identify a row of a plan.

use std::collections::BTreeMap;

use livelake_dataflow::plan::{Plan, RelationId};

use super::map::column_index;

/// The shortest of the keys that can be derived; empty if there is none but the whole row (or if there is at most one row).
pub(super) fn shortest(plan: &Plan, relations: &BTreeMap<RelationId, Vec<usize>>) -> Vec<usize> {
    keys(plan, relations).into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// More keys than this are not followed: they multiply with every join.
const KEYS_MAX: usize = 8;

fn keys(plan: &Plan, relations: &BTreeMap<RelationId, Vec<usize>>) -> Vec<Vec<usize>> {
    let below = |input: &Plan| keys(input, relations);
    let mut found = match plan {
        Plan::Get { relation, .. } => relations.get(relation).cloned().into_iter().collect(),
        // What remains of some rows when others are taken away.
        Plan::Union { inputs } if inputs.iter().skip(1).all(|input| matches!(input, Plan::Negate { .. })) => {
            inputs.first().map(below).unwrap_or_default()
        }
        Plan::Constant { .. } | Plan::Union { .. } | Plan::Negate { .. } | Plan::FlatMap { .. } | Plan::Round { .. } => {
            Vec::new()
        }
        Plan::Fixpoint { distinct, schema, .. } => {
            if *distinct {
                vec![(0..schema.fields().len()).collect()]
            } else {
                Vec::new()
            }
        }
        Plan::Map { input, projection, .. } => {
            let place = |column: &usize| projection.iter().position(|expr| column_index(expr) == Some(*column));
            below(input).iter().filter_map(|key| key.iter().map(place).collect()).collect()
        }
        // A row is in one window if they don't overlap, else it is known by its window, too.
        Plan::Window { input, slide, size, .. } => {
            let start = input.schema().fields().len();
            let mut found = below(input);
            if size > slide {
                found.iter_mut().for_each(|key| key.push(start));
            }
            found
        }
        Plan::TemporalFilter { input, .. } => below(input),
        Plan::Join { left, right, on, .. } => join_keys(left, right, on, relations),
        Plan::Reduce { keys, .. } => vec![(0..keys.len()).collect()],
        Plan::Distinct { input } => {
            let mut found = below(input);
            found.push((0..input.schema().fields().len()).collect());
            found
        }
        Plan::TopK { input, partition, limit, row_number, schema, .. } => {
            let mut found = below(input);
            if *limit == Some(1) && !partition.is_empty() {
                found.insert(0, partition.clone());
            } else if *row_number {
                found.push(partition.iter().copied().chain([schema.fields().len() - 1]).collect());
            }
            found
        }
        // a window function hands its rows on; an aggregate's groups are known by their keys, which come first
        Plan::EachGroup { input, partition, schema, function, .. } => match function.one_row_each() {
            true => vec![(0..partition.len()).collect()],
            false => below(input).into_iter().filter(|key| key.iter().all(|column| *column < schema.fields().len())).collect(),
        },
    };
    for key in &mut found {
        let mut seen = Vec::with_capacity(key.len());
        key.retain(|column| {
            !seen.contains(column) && {
                seen.push(*column);
                true
            }
        });
    }
    found.retain(|key| !key.is_empty());
    found.truncate(KEYS_MAX);
    found
}

fn join_keys(left: &Plan, right: &Plan, on: &[(usize, usize)], relations: &BTreeMap<RelationId, Vec<usize>>) -> Vec<Vec<usize>> {
    let (left_keys, right_keys) = (keys(left, relations), keys(right, relations));
    let offset = left.schema().fields().len();
    let shifted = |key: &Vec<usize>| -> Vec<usize> { key.iter().map(|column| offset + column).collect() };
    let mut found = Vec::new();
    // If the join fixes the right's key, or the right is one row, a left row has one partner at most, and the other way round.
    if one_row_at_most(right) || right_keys.iter().any(|key| key.iter().all(|column| on.iter().any(|(_, right)| right == column)))
    {
        found.extend(left_keys.iter().cloned());
    }
    if one_row_at_most(left) || left_keys.iter().any(|key| key.iter().all(|column| on.iter().any(|(left, _)| left == column))) {
        found.extend(right_keys.iter().map(shifted));
    }
    if found.is_empty() {
        for left in &left_keys {
            for right in &right_keys {
                found.push(left.iter().copied().chain(shifted(right)).collect());
            }
        }
    }
    found
}

/// Whether there is never more than one row, as of an aggregate without GROUP BY.
fn one_row_at_most(plan: &Plan) -> bool {
    match plan {
        Plan::Reduce { keys, .. } => keys.is_empty(),
        Plan::EachGroup { partition, function, .. } => partition.is_empty() && function.one_row_each(),
        Plan::Map { input, .. } | Plan::TemporalFilter { input, .. } | Plan::Distinct { input } => one_row_at_most(input),
        Plan::TopK { input, partition, limit, .. } => (partition.is_empty() && *limit == Some(1)) || one_row_at_most(input),
        Plan::Join { left, right, .. } => one_row_at_most(left) && one_row_at_most(right),
        _ => false,
    }
}
