//! Plans as text: the logical plan, and the dataflow with what each operator keeps.

use std::fmt::Write;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::displayable;
use datafusion::prelude::DataFrame;
use livelake_dataflow::plan::{Aggregate, OrderBy, Plan, RelationId};

use crate::catalog::Catalog;
use crate::plan::ViewPlan;
use crate::provider::{indexes_of, relation_of};
use crate::session::seeked;
use crate::statement::RelationKind;

/// A view's logical plan, dataflow, key and inputs.
pub fn view_text(plan: &ViewPlan, catalog: &Catalog) -> String {
    let key: Vec<&str> = plan.key.iter().map(|index| plan.schema.field(*index).name().as_str()).collect();
    let key = if key.is_empty() { "the whole row".to_string() } else { key.join(", ") };
    format!(
        "logical plan\n{}\n\ndataflow (what each operator keeps stands after the arrow)\n{}\nkept: the view's rows, by {key}\n",
        indented(&plan.logical.display_indent().to_string()),
        indented(&dataflow_text(&plan.plan, catalog)),
    )
}

/// How a query that is answered once is run: its optimised logical plan and its physical plan.
///
/// # Errors
/// If it cannot be planned physically.
pub async fn answer_text(frame: DataFrame) -> Result<String> {
    let (state, plan) = frame.into_parts();
    let logical = state.optimize(&plan)?;
    let physical = state.create_physical_plan(&plan).await?;
    Ok(format!(
        "logical plan\n{}\n\nphysical plan\n{}\n",
        indented(&logical.display_indent().to_string()),
        indented(&displayable(physical.as_ref()).indent(false).to_string()),
    ))
}

/// How each relation of an optimised query is read that is not read whole: a line each, by the key or an index.
pub fn seeks_text(plan: &LogicalPlan) -> String {
    let mut text = String::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(relation) = relation_of(&scan.source)
            && let Ok(Some(by)) = seeked(&relation, indexes_of(&scan.source), &scan.filters)
        {
            let what = if by.id == relation.id { "its key".to_owned() } else { format!("index {}", by.name) };
            // writing to a string cannot fail
            let _ = writeln!(text, "{}: one key is sought, by {what} ({})", relation.name, by.key_names().join(", "));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    text
}

/// A dataflow plan, one operator a line, inputs indented below.
pub fn dataflow_text(plan: &Plan, catalog: &Catalog) -> String {
    let mut text = String::new();
    write_node(plan, catalog, 0, &mut Vec::new(), &mut text);
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn write_node<'p>(plan: &'p Plan, catalog: &Catalog, depth: usize, seen: &mut Vec<&'p Plan>, text: &mut String) {
    let indent = "  ".repeat(depth);
    // the engine builds equal parts once
    if !plan.children().is_empty() && seen.contains(&plan) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{indent}{}  (the one above)", operator(plan, catalog));
        return;
    }
    seen.push(plan);
    let kept = state_of(plan, catalog).map(|kept| format!("  → {kept}")).unwrap_or_default();
    let _ = writeln!(text, "{indent}{}{kept}", operator(plan, catalog));
    for child in plan.children() {
        write_node(child, catalog, depth + 1, seen, text);
    }
}

fn operator(plan: &Plan, catalog: &Catalog) -> String {
    match plan {
        Plan::Get { relation, schema } => format!("Get {} [{}]", name_of(*relation, catalog), column_names(schema)),
        Plan::Constant { rows } => format!("Constant {} rows [{}]", rows.num_rows(), column_names(&rows.schema())),
        Plan::Map { predicates, projection, schema, .. } => {
            let mut line = format!("Map [{}]", computed(projection, schema));
            if !predicates.is_empty() {
                let all: Vec<String> = predicates.iter().map(ToString::to_string).collect();
                let _ = write!(line, " where {}", all.join(" and "));
            }
            line
        }
        Plan::Window { input, time, slide, size, .. } => {
            let kind = if slide == size { "tumble".to_string() } else { format!("hop every {}", length(*slide)) };
            format!("Window {kind} of {} by {}", length(*size), column(&input.schema(), *time))
        }
        Plan::TemporalFilter { from, until, .. } => {
            let bound = |word: &str, expr: &Option<std::sync::Arc<dyn PhysicalExpr>>| {
                expr.as_ref().map(|expr| format!(" {word} {expr}")).unwrap_or_default()
            };
            format!("TemporalFilter{}{}", bound("from", from), bound("until", until))
        }
        Plan::Join { left, right, on, null_equals_null, range, .. } => {
            let (left, right) = (left.schema(), right.schema());
            let pairs: Vec<String> = on.iter().map(|(l, r)| format!("{} = {}", column(&left, *l), column(&right, *r))).collect();
            let on = if pairs.is_empty() { "everything (cross product)".to_string() } else { pairs.join(" and ") };
            let range = range.map(|range| {
                let sign = if range.left_is_greater { ">=" } else { "<=" };
                format!(", sought by {} {sign} {}", column(&left, range.left), column(&right, range.right))
            });
            let nulls = if *null_equals_null { ", NULL = NULL" } else { "" };
            format!("Join on {on}{nulls}{}", range.unwrap_or_default())
        }
        Plan::Reduce { input, keys, aggregates, .. } => {
            let input = input.schema();
            let keys: Vec<String> = keys.iter().map(|key| column(&input, *key)).collect();
            let calls: Vec<String> = aggregates.iter().map(|call| aggregate(call, &input)).collect();
            format!("Reduce by [{}]: {}", keys.join(", "), calls.join(", "))
        }
        Plan::Distinct { .. } => "Distinct".to_string(),
        Plan::Union { .. } => "Union".to_string(),
        Plan::Negate { .. } => "Negate".to_string(),
        Plan::TopK { input, partition, order, offset, limit, row_number, .. } => {
            let input = input.schema();
            let partition: Vec<String> = partition.iter().map(|index| column(&input, *index)).collect();
            let order: Vec<String> = order.iter().map(|by| order_by(by, &input)).collect();
            let limit = limit.map_or("all".to_string(), |limit| limit.to_string());
            let mut line = format!("TopK {limit} by [{}] of each [{}]", order.join(", "), partition.join(", "));
            if *offset > 0 {
                let _ = write!(line, " after {offset}");
            }
            if *row_number {
                line.push_str(" with row number");
            }
            line
        }
        Plan::FlatMap { function, .. } => format!("FlatMap {}", function.name()),
        Plan::Fixpoint { variable, distinct, rounds, .. } => {
            let each = if *distinct { "each row once" } else { "all rows" };
            format!("Fixpoint {variable} of its first input and, again and again, its second: {each}, at most {rounds} rounds")
        }
        Plan::Round { variable, schema } => format!("Rows so far of fixpoint {variable} [{}]", column_names(schema)),
        Plan::EachGroup { input, partition, order, function, .. } => {
            let input = input.schema();
            let partition: Vec<String> = partition.iter().map(|index| column(&input, *index)).collect();
            let order: Vec<String> = order.iter().map(|by| order_by(by, &input)).collect();
            format!("EachGroup of [{}] by [{}]: {}", partition.join(", "), order.join(", "), function.name())
        }
    }
}

fn is_source_without_key(catalog: &Catalog, id: RelationId) -> bool {
    catalog.by_id(id).is_some_and(|relation| relation.kind == RelationKind::Source && relation.key.is_empty())
}

/// What an operator keeps between ticks; stateless ones keep nothing.
fn state_of(plan: &Plan, catalog: &Catalog) -> Option<String> {
    match plan {
        Plan::Join { left, right, on, .. } => {
            let side = |schema: &Schema, keys: Vec<usize>| {
                let keys: Vec<String> = keys.into_iter().map(|key| column(schema, key)).collect();
                if keys.is_empty() { "all rows".to_string() } else { format!("rows by ({})", keys.join(", ")) }
            };
            let left = side(&left.schema(), on.iter().map(|(left, _)| *left).collect());
            let right = side(&right.schema(), on.iter().map(|(_, right)| *right).collect());
            Some(format!("left {left}; right {right}"))
        }
        Plan::Reduce { aggregates, keys, .. } => {
            let groups = if keys.is_empty() { "one row" } else { "one row per group" };
            let distinct = aggregates.iter().any(|call| call.distinct);
            Some(format!("{groups}{}", if distinct { ", and the distinct arguments of each" } else { "" }))
        }
        Plan::Fixpoint { .. } => Some("the rows of each round".to_string()),
        Plan::Distinct { .. } => Some("one row per distinct row".to_string()),
        Plan::TopK { input, limit: Some(_), .. } if input.only_inserts(&|id| is_source_without_key(catalog, id)) => {
            Some("the rows of each group, in order; only the first ones if the sources never take a row back".to_string())
        }
        Plan::TopK { .. } | Plan::EachGroup { .. } => Some("the rows of each group, in order".to_string()),
        Plan::TemporalFilter { .. } => Some("the retractions that are due later".to_string()),
        _ => None,
    }
}

fn name_of(relation: RelationId, catalog: &Catalog) -> String {
    catalog.by_id(relation).map_or_else(|| relation.to_string(), |relation| relation.name.to_string())
}

fn column(schema: &Schema, index: usize) -> String {
    schema.fields().get(index).map_or_else(|| format!("#{index}"), |field| field.name().clone())
}

fn column_names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn computed(projection: &[std::sync::Arc<dyn PhysicalExpr>], schema: &Schema) -> String {
    let one = |(expr, field): (&std::sync::Arc<dyn PhysicalExpr>, &arrow::datatypes::FieldRef)| {
        let name = field.name();
        match expr.as_any().downcast_ref::<datafusion::physical_expr::expressions::Column>() {
            Some(column) if column.name() == name => name.clone(),
            _ => format!("{expr} as {name}"),
        }
    };
    projection.iter().zip(schema.fields()).map(one).collect::<Vec<_>>().join(", ")
}

fn aggregate(call: &Aggregate, input: &Schema) -> String {
    let arguments: Vec<String> = call.arguments.iter().map(|index| column(input, *index)).collect();
    let arguments = if arguments.is_empty() { "*".to_string() } else { arguments.join(", ") };
    let distinct = if call.distinct { "distinct " } else { "" };
    format!("{:?}({distinct}{arguments})", call.function)
}

fn order_by(by: &OrderBy, input: &Schema) -> String {
    let direction = if by.descending { " desc" } else { "" };
    let nulls = if by.nulls_first == by.descending {
        ""
    } else if by.nulls_first {
        " nulls first"
    } else {
        " nulls last"
    };
    format!("{}{direction}{nulls}", column(input, by.column))
}

fn length(microseconds: i64) -> String {
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    let unit = units.iter().find(|(length, _)| microseconds % length == 0);
    unit.map_or_else(|| format!("{microseconds}us"), |(length, name)| format!("{}{name}", microseconds / length))
}
