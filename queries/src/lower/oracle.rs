//! A reference for tests: runs a plan on whole bags of rows, slowly and plainly, to be compared with DataFusion's batch answer to
//! the query that it was lowered from.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use livelake_dataflow::plan::{Aggregate, AggregateFunction, Plan, RelationId};

/// Rows, and how many there are of each (below zero: taken away).
struct Bag {
    rows: RecordBatch,
    counts: Vec<i64>,
}

/// The rows of a plan at a time, each as often as it is there.
pub(crate) fn run(plan: &Plan, relations: &BTreeMap<RelationId, RecordBatch>, now: i64) -> RecordBatch {
    let bag = evaluate(plan, relations, now).consolidated();
    let expanded = bag.counts.iter().enumerate().flat_map(|(row, count)| {
        assert!(*count > 0, "a row is there {count} times");
        std::iter::repeat_n(row as u32, *count as usize)
    });
    taken(&bag.rows, &UInt32Array::from_iter_values(expanded))
}

fn evaluate(plan: &Plan, relations: &BTreeMap<RelationId, RecordBatch>, now: i64) -> Bag {
    let input = |plan: &Plan| evaluate(plan, relations, now);
    match plan {
        Plan::Get { relation, schema } => {
            let rows = &relations[relation];
            assert_eq!(rows.num_columns(), schema.fields().len());
            Bag::once(rows.clone())
        }
        Plan::Constant { rows } => Bag::once(rows.clone()),
        Plan::Map { input: below, predicates, projection, schema } => {
            let mut bag = input(below);
            for predicate in predicates {
                let truth = array(predicate, &bag.rows);
                bag = bag.kept(|row| truth.is_valid(row) && truth.as_boolean().value(row));
            }
            let columns = projection.iter().map(|expr| array(expr, &bag.rows)).collect();
            Bag { rows: batch(schema, columns, bag.rows.num_rows()), counts: bag.counts }
        }
        Plan::Window { input: below, time, slide, size, schema } => {
            let bag = input(below);
            let times = bag.rows.column(*time).as_primitive::<TimestampMicrosecondType>().clone();
            let (mut rows, mut starts) = (Vec::new(), Vec::new());
            for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
                let covers = |start: i64| start <= times.value(row) && times.value(row) < start + size;
                let around = -(size / slide + 2)..2;
                for start in
                    around.map(|step| (times.value(row).div_euclid(*slide) + step) * slide).filter(|start| covers(*start))
                {
                    rows.push(row as u32);
                    starts.push(start);
                }
            }
            let indices = UInt32Array::from(rows);
            let mut columns = taken(&bag.rows, &indices).columns().to_vec();
            let stamp = |values: Vec<i64>| {
                arrow::compute::cast(&Int64Array::from(values), schema.fields().last().unwrap().data_type()).unwrap()
            };
            let ends = starts.iter().map(|start| start + size).collect();
            columns.extend([stamp(starts), stamp(ends)]);
            let counts = indices.values().iter().map(|row| bag.counts[*row as usize]).collect();
            Bag { rows: batch(schema, columns, indices.len()), counts }
        }
        Plan::TemporalFilter { input: below, from, until } => {
            let bag = input(below);
            let bound = |expr: &Option<Arc<dyn PhysicalExpr>>| expr.as_ref().map(|expr| array(expr, &bag.rows));
            let (from, until) = (bound(from), bound(until));
            let holds = |bound: &Option<ArrayRef>, row: usize, test: fn(i64, i64) -> bool| match bound {
                None => true,
                Some(times) => times.is_valid(row) && test(times.as_primitive::<TimestampMicrosecondType>().value(row), now),
            };
            let keep: Vec<bool> = (0..bag.rows.num_rows())
                .map(|row| holds(&from, row, |from, now| from <= now) && holds(&until, row, |until, now| now < until))
                .collect();
            bag.kept(|row| keep[row])
        }
        Plan::Join { left, right, on, null_equals_null, schema, .. } => {
            let (left, right) = (input(left), input(right));
            let key = |bag: &Bag, columns: Vec<usize>| {
                let nulls = |row: usize| columns.iter().any(|column| bag.rows.column(*column).is_null(row));
                let keys = encoded(&bag.rows, &columns, &[]);
                keys.into_iter()
                    .enumerate()
                    .map(|(row, key)| (*null_equals_null || !nulls(row)).then_some(key))
                    .collect::<Vec<_>>()
            };
            let left_keys = key(&left, on.iter().map(|(l, _)| *l).collect());
            let right_keys = key(&right, on.iter().map(|(_, r)| *r).collect());
            let (mut l, mut r, mut counts) = (Vec::new(), Vec::new(), Vec::new());
            for (i, left_key) in left_keys.iter().enumerate() {
                for (j, right_key) in right_keys.iter().enumerate() {
                    if left_key.is_some() && left_key == right_key {
                        l.push(i as u32);
                        r.push(j as u32);
                        counts.push(left.counts[i] * right.counts[j]);
                    }
                }
            }
            let mut columns = taken(&left.rows, &UInt32Array::from(l)).columns().to_vec();
            columns.extend(taken(&right.rows, &UInt32Array::from(r)).columns().to_vec());
            Bag { rows: batch(schema, columns, counts.len()), counts }
        }
        Plan::Reduce { input: below, keys, aggregates, schema } => reduce(input(below).consolidated(), keys, aggregates, schema),
        Plan::Distinct { input: below } => {
            let mut bag = input(below).consolidated();
            bag.counts.iter_mut().for_each(|count| *count = 1);
            bag
        }
        Plan::Union { inputs } => {
            let bags: Vec<Bag> = inputs.iter().map(input).collect();
            let schema = nullable(&bags[0].rows.schema());
            let parts: Vec<RecordBatch> =
                bags.iter().map(|bag| batch(&schema, bag.rows.columns().to_vec(), bag.rows.num_rows())).collect();
            Bag { rows: concat_batches(&schema, &parts).unwrap(), counts: bags.into_iter().flat_map(|bag| bag.counts).collect() }
        }
        Plan::Negate { input: below } => {
            let mut bag = input(below);
            bag.counts.iter_mut().for_each(|count| *count = -*count);
            bag
        }
        Plan::TopK { input: below, partition, order, offset, limit, row_number, schema } => {
            let rows = Bag::once(run(below, relations, now)).rows;
            let groups = encoded(&rows, partition, &[]);
            let columns: Vec<usize> = order.iter().map(|by| by.column).chain(0..rows.num_columns()).collect();
            let options: Vec<SortOptions> =
                order.iter().map(|by| SortOptions { descending: by.descending, nulls_first: by.nulls_first }).collect();
            let ranks = encoded(&rows, &columns, &options);
            let mut sorted: Vec<usize> = (0..rows.num_rows()).collect();
            sorted.sort_by(|a, b| groups[*a].cmp(&groups[*b]).then_with(|| ranks[*a].cmp(&ranks[*b])));
            let (mut kept, mut numbers) = (Vec::new(), Vec::new());
            for (at, row) in sorted.iter().enumerate() {
                let number = sorted[..at].iter().filter(|other| groups[**other] == groups[*row]).count() as u64;
                if number >= *offset && limit.is_none_or(|limit| number < offset + limit) {
                    kept.push(*row as u32);
                    numbers.push(number as i64 + 1);
                }
            }
            let mut columns = taken(&rows, &UInt32Array::from(kept)).columns().to_vec();
            if *row_number {
                columns.push(Arc::new(Int64Array::from(numbers.clone())));
            }
            Bag::once(batch(schema, columns, numbers.len()))
        }
        Plan::FlatMap { input: below, function, .. } => {
            let bag = input(below);
            let (rows, origins) = function.apply(&bag.rows).unwrap();
            Bag { counts: origins.values().iter().map(|row| bag.counts[*row as usize]).collect(), rows }
        }
        Plan::Fixpoint { .. } | Plan::Round { .. } => panic!("the reference has no recursion"),
        Plan::EachGroup { input: below, partition, order, function, always, .. } => {
            let rows = Bag::once(run(below, relations, now)).rows;
            let groups = encoded(&rows, partition, &[]);
            let columns: Vec<usize> = order.iter().map(|by| by.column).chain(0..rows.num_columns()).collect();
            let options: Vec<SortOptions> =
                order.iter().map(|by| SortOptions { descending: by.descending, nulls_first: by.nulls_first }).collect();
            let ranks = encoded(&rows, &columns, &options);
            let mut sorted: Vec<usize> = (0..rows.num_rows()).collect();
            sorted.sort_by(|a, b| groups[*a].cmp(&groups[*b]).then_with(|| ranks[*a].cmp(&ranks[*b])));
            let mut ends: Vec<usize> = (1..sorted.len()).filter(|at| groups[sorted[*at]] != groups[sorted[at - 1]]).collect();
            if *always || !sorted.is_empty() {
                ends.push(sorted.len());
            }
            let sorted = UInt32Array::from_iter_values(sorted.into_iter().map(|row| row as u32));
            Bag::once(function.apply(&taken(&rows, &sorted), &ends).unwrap().rows)
        }
    }
}

fn reduce(bag: Bag, keys: &[usize], aggregates: &[Aggregate], schema: &SchemaRef) -> Bag {
    let mut groups: BTreeMap<OwnedRow, Vec<u32>> = BTreeMap::new();
    for (row, key) in encoded(&bag.rows, keys, &[]).into_iter().enumerate() {
        groups.entry(key).or_default().extend(std::iter::repeat_n(row as u32, bag.counts[row] as usize));
    }
    let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
    if keys.is_empty() && groups.is_empty() {
        groups.push(Vec::new());
    }
    let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::new(); schema.fields().len()];
    for group in &groups {
        for (index, key) in keys.iter().enumerate() {
            columns[index].push(ScalarValue::try_from_array(bag.rows.column(*key), group[0] as usize).unwrap());
        }
        for (index, call) in aggregates.iter().enumerate() {
            let rows = taken(&bag.rows, &UInt32Array::from(group.clone()));
            columns[keys.len() + index].push(aggregate(call, &rows));
        }
    }
    let arrays = columns.into_iter().zip(schema.fields()).map(|(values, field)| {
        if values.is_empty() {
            return arrow::array::new_empty_array(field.data_type());
        }
        let values = values.into_iter().map(|value| value.cast_to(field.data_type()).unwrap());
        ScalarValue::iter_to_array(values).unwrap()
    });
    Bag::once(batch(schema, arrays.collect(), groups.len()))
}

fn aggregate(call: &Aggregate, rows: &RecordBatch) -> ScalarValue {
    let Some(argument) = call.arguments.first() else { return ScalarValue::Int64(Some(rows.num_rows() as i64)) };
    let column = rows.column(*argument);
    let mut values: Vec<ScalarValue> = (0..column.len())
        .filter(|row| column.is_valid(*row))
        .map(|row| ScalarValue::try_from_array(column, row).unwrap())
        .collect();
    if call.distinct {
        let mut seen: Vec<ScalarValue> = Vec::new();
        values.retain(|value| {
            !seen.contains(value) && {
                seen.push(value.clone());
                true
            }
        });
    }
    let null = || ScalarValue::try_from(&call.data_type).unwrap();
    let sum = |to: &DataType| values.iter().map(|v| v.cast_to(to).unwrap()).reduce(|a, b| a.add_checked(b).unwrap());
    let best = |ordering: std::cmp::Ordering| {
        values.iter().cloned().reduce(|a, b| if b.partial_cmp(&a) == Some(ordering) { b } else { a }).unwrap_or_else(null)
    };
    match call.function {
        AggregateFunction::Count => ScalarValue::Int64(Some(values.len() as i64)),
        AggregateFunction::Sum => sum(&call.data_type).unwrap_or_else(null),
        AggregateFunction::Avg => match sum(&DataType::Float64) {
            Some(ScalarValue::Float64(Some(sum))) => ScalarValue::Float64(Some(sum / values.len() as f64)),
            _ => null(),
        },
        AggregateFunction::Min => best(std::cmp::Ordering::Less),
        AggregateFunction::Max => best(std::cmp::Ordering::Greater),
        other => panic!("the reference has no {other:?}"),
    }
}

impl Bag {
    fn once(rows: RecordBatch) -> Bag {
        Bag { counts: vec![1; rows.num_rows()], rows }
    }

    fn kept(self, keep: impl Fn(usize) -> bool) -> Bag {
        let rows: Vec<u32> = (0..self.rows.num_rows()).filter(|row| keep(*row)).map(|row| row as u32).collect();
        let counts = rows.iter().map(|row| self.counts[*row as usize]).collect();
        Bag { rows: taken(&self.rows, &UInt32Array::from(rows)), counts }
    }

    /// Equal rows are one, rows that cancel out are gone.
    fn consolidated(self) -> Bag {
        let all: Vec<usize> = (0..self.rows.num_columns()).collect();
        let mut sums: BTreeMap<OwnedRow, (u32, i64)> = BTreeMap::new();
        for (row, key) in encoded(&self.rows, &all, &[]).into_iter().enumerate() {
            sums.entry(key).or_insert((row as u32, 0)).1 += self.counts[row];
        }
        sums.retain(|_, (_, count)| *count != 0);
        let rows = UInt32Array::from_iter_values(sums.values().map(|(row, _)| *row));
        Bag { rows: taken(&self.rows, &rows), counts: sums.values().map(|(_, count)| *count).collect() }
    }
}

fn array(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> ArrayRef {
    expr.evaluate(rows).unwrap().into_array(rows.num_rows()).unwrap()
}

fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(nullable(schema), columns, &options).unwrap()
}

fn taken(rows: &RecordBatch, indices: &UInt32Array) -> RecordBatch {
    let columns = rows.columns().iter().map(|column| take(column, indices, None).unwrap()).collect();
    batch(&rows.schema(), columns, indices.len())
}

/// Some columns of every row as one comparable value.
fn encoded(rows: &RecordBatch, columns: &[usize], options: &[SortOptions]) -> Vec<OwnedRow> {
    if columns.is_empty() {
        let one: ArrayRef = Arc::new(Int64Array::from(vec![0; rows.num_rows()]));
        let converted = RowConverter::new(vec![SortField::new(DataType::Int64)]).unwrap().convert_columns(&[one]).unwrap();
        return converted.iter().map(|row| row.owned()).collect();
    }
    let field = |(at, column): (usize, &usize)| {
        let data_type = rows.column(*column).data_type().clone();
        SortField::new_with_options(data_type, options.get(at).copied().unwrap_or_default())
    };
    let converter = RowConverter::new(columns.iter().enumerate().map(field).collect()).unwrap();
    let arrays: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
    converter.convert_columns(&arrays).unwrap().iter().map(|row| row.owned()).collect()
}
