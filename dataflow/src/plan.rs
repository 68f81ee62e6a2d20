//! What the engine can be asked to maintain: a tree of operators over named relations.
//!
//! `livelake-queries` lowers SQL to this tree; `render` turns it into timely operators. It says nothing of SQL text, names
//! or catalogs. Expressions are DataFusion physical expressions over the columns of the operator's input, evaluated on
//! whole batches. A plan describes bags of rows: every operator is exact under insertions and retractions, duplicate rows
//! are real, and NULL, NaN and -0.0 compare in keys as [`crate::rows`] encodes them (NULL equals NULL, NaN equals NaN,
//! -0.0 equals 0.0).

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr::PhysicalExpr;

use crate::function::{GroupFunction, RowFunction};

/// Names a relation (source, table or view) in the engine. Chosen by the caller, never used again after a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RelationId(pub u64);

impl std::fmt::Display for RelationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// An operator and its inputs. Every node knows the schema of its output: see [`Plan::schema`].
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// All rows of a relation that was created in the engine earlier, with all its columns in their order.
    Get {
        /// Which one.
        relation: RelationId,
        /// Its columns.
        schema: SchemaRef,
    },
    /// Rows that never change.
    Constant {
        /// The rows.
        rows: RecordBatch,
    },
    /// Keeps the rows for which all predicates are true, then computes the output columns. Vectorised, stateless, fused with
    /// its neighbours of the same kind.
    Map {
        /// Where the rows come from.
        input: Box<Plan>,
        /// Boolean expressions over the input's columns; NULL counts as false.
        predicates: Vec<Arc<dyn PhysicalExpr>>,
        /// One expression over the input's columns for each output column.
        projection: Vec<Arc<dyn PhysicalExpr>>,
        /// Names and types of the output columns.
        schema: SchemaRef,
    },
    /// Assigns each row to the windows of `size` that begin every `slide` microseconds (aligned to 1970-01-01 UTC) and contain
    /// its time; a row with a NULL time is in none. `slide == size` is TUMBLE. Appends `window_start` and `window_end`
    /// (exclusive), of the time column's type.
    Window {
        /// Where the rows come from.
        input: Box<Plan>,
        /// The column of the input that holds the time: a `Timestamp(Microsecond, _)`.
        time: usize,
        /// Microseconds between the beginnings of two windows, above zero.
        slide: i64,
        /// Microseconds that a window lasts, above zero.
        size: i64,
        /// The input's columns, `window_start`, `window_end`.
        schema: SchemaRef,
    },
    /// `WHERE` against `now()`: a row exists from `from` (inclusive) until `until` (exclusive), on the engine's clock. Rows
    /// leave by future-dated retractions, so nothing is ever scanned. NULL in a bound that is given hides the row.
    TemporalFilter {
        /// Where the rows come from.
        input: Box<Plan>,
        /// First instant at which the row counts, `Timestamp(Microsecond, _)`; absent: since ever.
        from: Option<Arc<dyn PhysicalExpr>>,
        /// First instant at which it no longer counts, `Timestamp(Microsecond, _)`; absent: for ever.
        until: Option<Arc<dyn PhysicalExpr>>,
    },
    /// Inner equi-join. Output columns: all of the left, then all of the right. SQL equality: a NULL key matches nothing,
    /// unless `null_equals_null`.
    Join {
        /// Left input.
        left: Box<Plan>,
        /// Right input.
        right: Box<Plan>,
        /// Pairs of columns (of left, of right) that must be equal; the two have one type. Empty: the cross product.
        on: Vec<(usize, usize)>,
        /// IS NOT DISTINCT FROM instead of `=`.
        null_equals_null: bool,
        /// Pairs that are not within it may be left out: who asks for it filters them anyway.
        range: Option<JoinRange>,
        /// Left columns, then right columns.
        schema: SchemaRef,
    },
    /// GROUP BY. Output columns: the keys in order, then one per aggregate. Without keys there is exactly one output row,
    /// also over no input.
    Reduce {
        /// Where the rows come from.
        input: Box<Plan>,
        /// Columns of the input to group by.
        keys: Vec<usize>,
        /// What to compute.
        aggregates: Vec<Aggregate>,
        /// Keys, then aggregates.
        schema: SchemaRef,
    },
    /// Each distinct row once.
    Distinct {
        /// Where the rows come from.
        input: Box<Plan>,
    },
    /// UNION ALL. All inputs have the same column types; names are the first's.
    Union {
        /// At least one.
        inputs: Vec<Plan>,
    },
    /// The same rows with negated multiplicity; makes sense below a [`Plan::Union`] only.
    Negate {
        /// Where the rows come from.
        input: Box<Plan>,
    },
    /// The first rows of each group in an order: ORDER BY … LIMIT … OFFSET (no partition columns), DISTINCT ON, and
    /// `row_number() OVER (PARTITION BY … ORDER BY …) <= n`. Ties beyond the order are broken by the whole row, so that the
    /// answer is a function of the input.
    TopK {
        /// Where the rows come from.
        input: Box<Plan>,
        /// Columns that make the groups.
        partition: Vec<usize>,
        /// The order within a group.
        order: Vec<OrderBy>,
        /// How many of the first rows to leave out.
        offset: u64,
        /// How many to keep after that; absent: all.
        limit: Option<u64>,
        /// Whether to append the row's number within its group (Int64, from 1, before the offset is taken off).
        row_number: bool,
        /// The input's columns, and the number where asked for.
        schema: SchemaRef,
    },
    /// What a function gives for each group's rows as a whole: window functions, and aggregates of values that no sum can hold.
    EachGroup {
        /// Where the rows come from.
        input: Box<Plan>,
        /// Columns that make the groups.
        partition: Vec<usize>,
        /// The order in which the function sees a group's rows; ties are broken by the whole row.
        order: Vec<OrderBy>,
        /// What is computed.
        function: Arc<dyn GroupFunction>,
        /// Whether there is a result over no rows, too. Only without partition columns.
        always: bool,
        /// The columns of what the function gives.
        schema: SchemaRef,
    },
    /// What a function gives for each row by itself: unnest and the like.
    FlatMap {
        /// Where the rows come from.
        input: Box<Plan>,
        /// What is computed.
        function: Arc<dyn RowFunction>,
        /// The columns of what the function gives.
        schema: SchemaRef,
    },
    /// WITH RECURSIVE: the rows that `base` has, with those that `step` makes of what there is so far, until no more come. Of cycles and of
    /// duplicates `distinct` keeps each row once. What has not ended after `rounds` rounds is cut off there and said in the errors.
    Fixpoint {
        /// Names the rows so far for [`Plan::Round`]; one of its own for each fixpoint of a view.
        variable: u64,
        /// What it begins with.
        base: Box<Plan>,
        /// What it goes on with: [`Plan::Round`] is in it, above it only maps, flat maps, windows, joins, unions, negations and distincts.
        step: Box<Plan>,
        /// UNION instead of UNION ALL.
        distinct: bool,
        /// How many rounds are let be.
        rounds: u64,
        /// The columns of base and step.
        schema: SchemaRef,
    },
    /// The rows that the fixpoint around it has so far.
    Round {
        /// Which fixpoint.
        variable: u64,
        /// Its columns.
        schema: SchemaRef,
    },
}

/// A comparison of a left column with a right one, of the same type with a fixed width. Within equal keys rows are kept sorted by these
/// columns, so a row is paired with a run of the other side's instead of with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRange {
    /// Column of the left side, not of the key.
    pub left: usize,
    /// Column of the right side, not of the key.
    pub right: usize,
    /// Whether the left is at least the right; else it is at most that. Strict comparisons are asked for without strictness.
    pub left_is_greater: bool,
}

impl JoinRange {
    /// Whether columns of a type can be compared so: their encodings have one width and compare as the values do. Floats do not: SQL says
    /// that they are equal where their order says otherwise.
    pub fn fits(data_type: &DataType) -> bool {
        data_type.is_integer()
            || data_type.is_decimal()
            || matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_))
    }
}

/// One ordering column of a [`Plan::TopK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderBy {
    /// Column of the input.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// NULLs before all others (PostgreSQL's default is last when ascending, first when descending).
    pub nulls_first: bool,
}

/// One aggregate of a [`Plan::Reduce`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Aggregate {
    /// What it computes.
    pub function: AggregateFunction,
    /// Columns of the input: none for `count(*)`, two for corr and covar (y, x), one for the others.
    pub arguments: Vec<usize>,
    /// Whether equal arguments count once. Only with one argument.
    pub distinct: bool,
    /// Type of the result.
    pub data_type: DataType,
}

/// The aggregate functions. NULL arguments are passed over by all of them (for two arguments: if either is NULL); over no
/// rows `Count` is 0 and the others are NULL. FILTER is lowered to a NULL argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Number of rows, or of rows whose argument is not NULL. Int64.
    Count,
    /// Sum: Int64 of integers, Decimal of decimals, exact Float64 of floats (rounded once).
    Sum,
    /// Mean: Float64 of integers and floats (exact sum, rounded once), Decimal of decimals, in the scale of `data_type`.
    Avg,
    /// Least, in the order of the row encoding (NaN is greatest).
    Min,
    /// Greatest.
    Max,
    /// Population variance, Float64.
    VarPop,
    /// Sample variance, Float64; NULL for fewer than two rows.
    VarSamp,
    /// Population standard deviation, Float64.
    StddevPop,
    /// Sample standard deviation, Float64; NULL for fewer than two rows.
    StddevSamp,
    /// Population covariance, Float64.
    CovarPop,
    /// Sample covariance, Float64; NULL for fewer than two rows.
    CovarSamp,
    /// Pearson's correlation, Float64; NULL where a side has no variance.
    Corr,
    /// Whether all are true. Boolean.
    BoolAnd,
    /// Whether any is true. Boolean.
    BoolOr,
}

impl Plan {
    /// Names and types of the output columns.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Plan::Get { schema, .. }
            | Plan::Map { schema, .. }
            | Plan::Window { schema, .. }
            | Plan::Join { schema, .. }
            | Plan::Reduce { schema, .. }
            | Plan::TopK { schema, .. }
            | Plan::EachGroup { schema, .. }
            | Plan::FlatMap { schema, .. }
            | Plan::Fixpoint { schema, .. }
            | Plan::Round { schema, .. } => Arc::clone(schema),
            Plan::Constant { rows } => rows.schema(),
            Plan::TemporalFilter { input, .. } | Plan::Distinct { input } | Plan::Negate { input } => input.schema(),
            Plan::Union { inputs } => union_schema(inputs),
        }
    }

    /// The inputs, left to right.
    pub fn children(&self) -> Vec<&Plan> {
        match self {
            Plan::Get { .. } | Plan::Constant { .. } | Plan::Round { .. } => Vec::new(),
            Plan::Map { input, .. }
            | Plan::Window { input, .. }
            | Plan::TemporalFilter { input, .. }
            | Plan::Reduce { input, .. }
            | Plan::Distinct { input }
            | Plan::Negate { input }
            | Plan::TopK { input, .. }
            | Plan::EachGroup { input, .. }
            | Plan::FlatMap { input, .. } => vec![input],
            Plan::Fixpoint { base, step, .. } => vec![base, step],
            Plan::Join { left, right, .. } => vec![left, right],
            Plan::Union { inputs } => inputs.iter().collect(),
        }
    }

    /// Whether no row of it is ever taken away, if that is so for the relations that `inserts` names. A join of two such inputs is one,
    /// but an aggregate, a first row or what depends on the clock is not: there a row that comes takes another's place.
    pub fn only_inserts(&self, inserts: &dyn Fn(RelationId) -> bool) -> bool {
        match self {
            Plan::Get { relation, .. } => inserts(*relation),
            Plan::Constant { .. } => true,
            Plan::Map { .. }
            | Plan::Window { .. }
            | Plan::FlatMap { .. }
            | Plan::Distinct { .. }
            | Plan::Join { .. }
            | Plan::Union { .. } => self.children().into_iter().all(|child| child.only_inserts(inserts)),
            Plan::TemporalFilter { .. }
            | Plan::Reduce { .. }
            | Plan::Negate { .. }
            | Plan::TopK { .. }
            | Plan::EachGroup { .. }
            | Plan::Fixpoint { .. }
            | Plan::Round { .. } => false,
        }
    }

    /// Whether the rows so far of a fixpoint are in it.
    pub fn has_round(&self, of: u64) -> bool {
        matches!(self, Plan::Round { variable, .. } if *variable == of) || self.children().iter().any(|child| child.has_round(of))
    }

    /// The relations that the plan reads, each once, in order of first appearance.
    pub fn reads(&self) -> Vec<RelationId> {
        fn walk(plan: &Plan, found: &mut Vec<RelationId>) {
            if let Plan::Get { relation, .. } = plan
                && !found.contains(relation)
            {
                found.push(*relation);
            }
            plan.children().into_iter().for_each(|child| walk(child, found));
        }
        let mut found = Vec::new();
        walk(self, &mut found);
        found
    }
}

/// The first input's columns; one of them may be NULL if it may be in any input.
fn union_schema(inputs: &[Plan]) -> SchemaRef {
    let schemas: Vec<SchemaRef> = inputs.iter().map(Plan::schema).collect();
    let fields = schemas[0].fields().iter().enumerate().map(|(at, field)| {
        let nullable = schemas.iter().any(|schema| schema.field(at).is_nullable());
        field.as_ref().clone().with_nullable(nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
