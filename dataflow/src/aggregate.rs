//! Aggregates that live in the diff: how each is added up from columns, and read out of the sum.
//!
//! Every aggregate of a [`Plan::Reduce`](crate::plan::Plan::Reduce) gets a place in one row of words (see [`Lanes`]). The first
//! word counts the rows of the group, so a group exists while it is above zero. Aggregates over the same arguments share
//! places: `sum(x)`, `avg(x)` and `count(x)` cost one sum and one count.
//!
//! MIN, MAX and DISTINCT need ordered or deduplicated input, so operators in front of this one (top-k, distinct) feed
//! them; what those send is added up here like everything else. A minimum is the sum over the one row that is
//! the minimum: its bits, as an integer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;

use crate::exact::{self, Double2, FLOAT_LANES, FLOAT_WORDS, SUM_WORDS};
use crate::lanes::{Lanes, add_i64, add_i128, read_i128};
use crate::plan::{Aggregate, AggregateFunction};

mod finish;

use finish::{finish_bits, finish_integer_avg, finish_integer_sum, finish_pairs};

/// A place in the row of words, and what is added up there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    kind: PlaceKind,
    columns: Vec<usize>,
    branch: usize,
    offset: usize,
}

/// What a place adds up, over rows whose arguments are not NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceKind {
    /// Rows. One word.
    Count,
    /// Integers or decimals as 128-bit integers. Two words.
    Integer,
    /// Floats, exactly.
    Float,
    /// The exact square of a float.
    Square,
    /// Count, x, y, x², y², xy and their special values, for pairs.
    Pairs,
    /// True values. One word.
    True,
    /// The bits of the one value there is. Two words.
    Bits,
}

impl PlaceKind {
    fn lanes(self) -> &'static [usize] {
        match self {
            PlaceKind::Count | PlaceKind::True => &[1],
            PlaceKind::Integer | PlaceKind::Bits => &[2],
            PlaceKind::Float => &FLOAT_LANES,
            PlaceKind::Square => &[SUM_WORDS],
            PlaceKind::Pairs => &[1, SUM_WORDS, SUM_WORDS, SUM_WORDS, SUM_WORDS, SUM_WORDS, 1, 1, 1],
        }
    }

    fn words(self) -> usize {
        self.lanes().iter().sum()
    }
}

/// Where an aggregate's result is read from.
#[derive(Clone, Debug)]
struct Output {
    function: AggregateFunction,
    data_type: DataType,
    /// Place of the sum or the bits, where the function has one.
    value: usize,
    /// Place of the number of values.
    count: usize,
    /// Place of the squares.
    square: usize,
}

/// All aggregates of one reduce.
#[derive(Clone, Debug)]
pub struct Aggregates {
    places: Vec<Place>,
    outputs: Vec<Output>,
    lanes: Lanes,
    argument_types: Vec<(usize, DataType)>,
}

/// The rows that an aggregate is fed from: branch 0 is the reduce's own input; each DISTINCT argument and each MIN or MAX has
/// a branch of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Branch {
    /// The input as it is.
    Main,
    /// The input's distinct (keys, argument) rows.
    Distinct {
        /// The argument's column in the input.
        column: usize,
    },
    /// For each group the least, or greatest, argument that is not NULL.
    Extreme {
        /// The argument's column in the input.
        column: usize,
        /// Greatest rather than least.
        greatest: bool,
    },
}

impl Aggregates {
    /// Lays out the aggregates over an input of that schema. Also returns the branches in the order in which
    /// [`Self::accumulate`] names them.
    ///
    /// # Errors
    /// A function cannot take an argument of that type, in words for a user.
    pub fn new(aggregates: &[Aggregate], input: &Schema) -> Result<(Aggregates, Vec<Branch>), String> {
        let mut branches = vec![Branch::Main];
        let mut this = Aggregates {
            places: vec![Place { kind: PlaceKind::Count, columns: Vec::new(), branch: 0, offset: 0 }],
            outputs: Vec::new(),
            lanes: Lanes::multiplicity(),
            argument_types: Vec::new(),
        };
        for aggregate in aggregates {
            let branch = Self::branch_of(aggregate, &mut branches);
            this.add_output(aggregate, branch, input)?;
        }
        let mut widths = Vec::new();
        let mut offset = 0;
        for branch in 0..branches.len() {
            for place in this.places.iter_mut().filter(|place| place.branch == branch) {
                place.offset = offset;
                offset += place.kind.words();
                widths.extend_from_slice(place.kind.lanes());
            }
        }
        this.lanes = Lanes::new(&widths);
        Ok((this, branches))
    }

    fn branch_of(aggregate: &Aggregate, branches: &mut Vec<Branch>) -> usize {
        let branch = match aggregate.function {
            AggregateFunction::Min => Branch::Extreme { column: aggregate.arguments[0], greatest: false },
            AggregateFunction::Max => Branch::Extreme { column: aggregate.arguments[0], greatest: true },
            AggregateFunction::BoolAnd | AggregateFunction::BoolOr => return 0,
            _ if aggregate.distinct => Branch::Distinct { column: aggregate.arguments[0] },
            _ => return 0,
        };
        branches.iter().position(|known| *known == branch).unwrap_or_else(|| {
            branches.push(branch);
            branches.len() - 1
        })
    }

    fn place(&mut self, kind: PlaceKind, columns: &[usize], branch: usize) -> usize {
        let wanted = |place: &Place| place.kind == kind && place.columns == columns && place.branch == branch;
        self.places.iter().position(wanted).unwrap_or_else(|| {
            self.places.push(Place { kind, columns: columns.to_vec(), branch, offset: 0 });
            self.places.len() - 1
        })
    }

    fn add_output(&mut self, aggregate: &Aggregate, branch: usize, input: &Schema) -> Result<(), String> {
        use AggregateFunction::*;
        let arguments = &aggregate.arguments;
        for column in arguments {
            let data_type = input.field(*column).data_type().clone();
            if !self.argument_types.iter().any(|(known, _)| known == column) {
                self.argument_types.push((*column, data_type));
            }
        }
        let argument_type = arguments.first().map(|column| input.field(*column).data_type());
        // a column that cannot be NULL has a value in every row, and the rows are counted already
        let count = match arguments.first() {
            Some(column) if branch != 0 || input.field(*column).is_nullable() => self.place(PlaceKind::Count, arguments, branch),
            _ => 0,
        };
        let (value, square) = match aggregate.function {
            Count => (count, 0),
            Sum | Avg => match argument_type {
                Some(t) if t.is_integer() || matches!(t, DataType::Decimal128(..)) => {
                    (self.place(PlaceKind::Integer, arguments, branch), 0)
                }
                Some(DataType::Float64 | DataType::Float32) => (self.place(PlaceKind::Float, arguments, branch), 0),
                other => return Err(format!("{:?} of {other:?} is not supported", aggregate.function)),
            },
            VarPop | VarSamp | StddevPop | StddevSamp => {
                (self.place(PlaceKind::Float, arguments, branch), self.place(PlaceKind::Square, arguments, branch))
            }
            Corr | CovarPop | CovarSamp => (self.place(PlaceKind::Pairs, arguments, branch), 0),
            BoolAnd | BoolOr => (self.place(PlaceKind::True, arguments, branch), 0),
            Min | Max => (self.place(PlaceKind::Bits, arguments, branch), 0),
        };
        self.outputs.push(Output { function: aggregate.function, data_type: aggregate.data_type.clone(), value, count, square });
        Ok(())
    }

    /// Whether MIN or MAX of this type fits into words; the others are lowered to joins with a top-1.
    pub fn fits_in_words(data_type: &DataType) -> bool {
        data_type.primitive_width().is_some_and(|width| width <= 16) || matches!(data_type, DataType::Boolean)
    }

    /// Whether nothing is computed: the groups themselves are the result.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// The layout of the words.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The words that a branch adds to. Every word is of one branch, and the first one, the number of rows, of the main branch.
    pub fn words_of_branch(&self, branch: usize) -> std::ops::Range<usize> {
        let mut of_branch = self.places.iter().filter(|place| place.branch == branch);
        let begin = of_branch.clone().next().map_or(0, |place| place.offset);
        begin..of_branch.next_back().map_or(begin, |place| place.offset + place.kind.words())
    }

    /// Adds a batch of a branch into the groups' words (as many a group as the branch has): row `i` counts `diffs[i]` times towards
    /// group `groups[i]`. `columns` are the input's columns by their index; on branches other than the main one only the
    /// argument's column is looked at.
    ///
    /// # Errors
    /// A column is not of the type it was declared with.
    pub fn accumulate(
        &self,
        branch: usize,
        columns: &dyn Fn(usize) -> ArrayRef,
        groups: &[u32],
        diffs: &dyn Fn(usize) -> i64,
        words: &mut [u64],
    ) -> Result<(), ArrowError> {
        let words_of_branch = self.words_of_branch(branch);
        for (index, place) in self.places.iter().enumerate() {
            if place.branch != branch {
                continue;
            }
            let arrays: Vec<ArrayRef> = place.columns.iter().map(|column| columns(*column)).collect();
            let slot = |row: usize| {
                let begin = groups[row] as usize * words_of_branch.len() + place.offset - words_of_branch.start;
                begin..begin + place.kind.words()
            };
            match place.kind {
                PlaceKind::Count if index == 0 || arrays.iter().all(|array| array.null_count() == 0) => {
                    for row in 0..groups.len() {
                        add_i64(&mut words[slot(row)], diffs(row));
                    }
                }
                PlaceKind::Count => {
                    for row in (0..groups.len()).filter(|row| arrays.iter().all(|array| array.is_valid(*row))) {
                        add_i64(&mut words[slot(row)], diffs(row));
                    }
                }
                PlaceKind::Integer => {
                    for_each_integer(&arrays[0], |row, value| add_i128(&mut words[slot(row)], value * i128::from(diffs(row))))?;
                }
                PlaceKind::Bits => for_each_bits(&arrays[0], |row, value| {
                    let signed = if diffs(row) < 0 { value.wrapping_neg() } else { value };
                    add_i128(&mut words[slot(row)], signed);
                })?,
                PlaceKind::Float => {
                    let values = floats(&arrays[0])?;
                    let values = values.as_primitive::<Float64Type>();
                    for row in (0..groups.len()).filter(|row| values.is_valid(*row)) {
                        exact::add(&mut words[slot(row)], values.value(row), diffs(row));
                    }
                }
                PlaceKind::Square => {
                    let values = floats(&arrays[0])?;
                    let values = values.as_primitive::<Float64Type>();
                    for row in (0..groups.len()).filter(|row| values.is_valid(*row)) {
                        exact::add_product(&mut words[slot(row)], None, values.value(row), values.value(row), diffs(row));
                    }
                }
                PlaceKind::Pairs => {
                    let (left, right) = (floats(&arrays[0])?, floats(&arrays[1])?);
                    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
                    for row in (0..groups.len()).filter(|row| left.is_valid(*row) && right.is_valid(*row)) {
                        add_pair(&mut words[slot(row)], left.value(row), right.value(row), diffs(row));
                    }
                }
                PlaceKind::True => {
                    let values = arrays[0].as_boolean();
                    for row in (0..groups.len()).filter(|row| values.is_valid(*row) && values.value(*row)) {
                        add_i64(&mut words[slot(row)], diffs(row));
                    }
                }
            }
        }
        Ok(())
    }

    /// The result columns of some groups, given their words one after another.
    ///
    /// # Errors
    /// A result does not fit its type (a sum beyond 64 bits): the view cannot show it.
    pub fn finish(&self, words: &[u64]) -> Result<Vec<ArrayRef>, ArrowError> {
        let stride = self.lanes.stride();
        self.outputs.iter().map(|output| self.finish_one(output, words, stride)).collect()
    }

    fn finish_one(&self, output: &Output, words: &[u64], stride: usize) -> Result<ArrayRef, ArrowError> {
        use AggregateFunction::*;
        let groups = words.len() / stride;
        let value_offset = self.places[output.value].offset;
        let count_offset = self.places[output.count].offset;
        let group = |index: usize| &words[index * stride..(index + 1) * stride];
        let count = |index: usize| group(index)[count_offset] as i64;
        match (output.function, self.places[output.value].kind) {
            (Count, _) => {
                let mut builder = Int64Builder::with_capacity(groups);
                (0..groups).for_each(|index| builder.append_value(group(index)[value_offset] as i64));
                Ok(Arc::new(builder.finish()))
            }
            (Sum, PlaceKind::Integer) => {
                finish_integer_sum(output, groups, &|index| (count(index) != 0).then(|| read_i128(&group(index)[value_offset..])))
            }
            (Avg, PlaceKind::Integer) => {
                let scale = self.argument_scale(output);
                finish_integer_avg(output, groups, scale, &|index| {
                    (count(index) != 0).then(|| (read_i128(&group(index)[value_offset..]), count(index)))
                })
            }
            (Min | Max, _) => {
                finish_bits(output, groups, &|index| (count(index) != 0).then(|| read_i128(&group(index)[value_offset..])))
            }
            (BoolAnd | BoolOr, _) => {
                let mut builder = BooleanBuilder::with_capacity(groups);
                for index in 0..groups {
                    let (trues, all) = (group(index)[value_offset] as i64, count(index));
                    let result = if output.function == BoolAnd { trues == all } else { trues > 0 };
                    builder.append_option((all != 0).then_some(result));
                }
                Ok(Arc::new(builder.finish()))
            }
            _ => {
                let mut builder = Float64Builder::with_capacity(groups);
                for index in 0..groups {
                    builder.append_option(self.finish_float(output, group(index)));
                }
                cast(&(Arc::new(builder.finish()) as ArrayRef), &output.data_type)
            }
        }
    }

    fn argument_scale(&self, output: &Output) -> i8 {
        let column = self.places[output.value].columns[0];
        match self.argument_types.iter().find(|(known, _)| *known == column) {
            Some((_, DataType::Decimal128(_, scale))) => *scale,
            _ => 0,
        }
    }

    fn finish_float(&self, output: &Output, group: &[u64]) -> Option<f64> {
        use AggregateFunction::*;
        let value = &group[self.places[output.value].offset..];
        if self.places[output.value].kind == PlaceKind::Pairs {
            return finish_pairs(output.function, value);
        }
        let count = group[self.places[output.count].offset] as i64;
        if count == 0 {
            return None;
        }
        let n = count as f64;
        match output.function {
            Sum => return Some(exact::read(value)),
            Avg => return Some(exact::read(value) / n),
            VarSamp | StddevSamp if count < 2 => return None,
            _ => {}
        }
        if exact::special(&value[SUM_WORDS..FLOAT_WORDS]).is_some() {
            return Some(f64::NAN);
        }
        let total = Double2::of_sum(value);
        let squares = Double2::of_sum(&group[self.places[output.square].offset..]);
        let scaled = squares.times(Double2::of(n)).minus(total.times(total)).value().max(0.0);
        let variance = scaled / n / if matches!(output.function, VarSamp | StddevSamp) { n - 1.0 } else { n };
        Some(if matches!(output.function, StddevPop | StddevSamp) { variance.sqrt() } else { variance })
    }
}

/// Integers and floats as Float64.
fn floats(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == &DataType::Float64 { Ok(Arc::clone(array)) } else { cast(array, &DataType::Float64) }
}

/// Adds (y, x) into a place of kind [`PlaceKind::Pairs`].
fn add_pair(words: &mut [u64], y: f64, x: f64, times: i64) {
    let (count, rest) = words.split_at_mut(1);
    add_i64(count, times);
    let (sums, special) = rest.split_at_mut(5 * SUM_WORDS);
    let mut parts = sums.chunks_exact_mut(SUM_WORDS);
    for (left, right) in [(x, 1.0), (y, 1.0), (x, x), (y, y), (x, y)] {
        if let Some(part) = parts.next() {
            exact::add_product(part, Some(&mut *special), left, right, times);
        }
    }
}

/// Calls for every value that is not NULL.
fn for_each_integer(array: &ArrayRef, mut f: impl FnMut(usize, i128)) -> Result<(), ArrowError> {
    macro_rules! each {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>();
            if values.null_count() == 0 {
                values.values().iter().enumerate().for_each(|(row, value)| f(row, *value as i128));
            } else {
                (0..values.len()).filter(|row| values.is_valid(*row)).for_each(|row| f(row, values.value(row) as i128));
            }
        }};
    }
    match array.data_type() {
        DataType::Int8 => each!(Int8Type),
        DataType::Int16 => each!(Int16Type),
        DataType::Int32 => each!(Int32Type),
        DataType::Int64 => each!(Int64Type),
        DataType::UInt8 => each!(UInt8Type),
        DataType::UInt16 => each!(UInt16Type),
        DataType::UInt32 => each!(UInt32Type),
        DataType::UInt64 => each!(UInt64Type),
        DataType::Decimal128(..) => each!(Decimal128Type),
        other => return Err(ArrowError::InvalidArgumentError(format!("a sum of {other} has no integer form"))),
    }
    Ok(())
}

/// The integer type whose values have the same width, to move bits through; `None` for what has no fixed width.
fn carrier(data_type: &DataType) -> Option<DataType> {
    Some(match data_type.primitive_width()? {
        1 => DataType::Int8,
        2 => DataType::Int16,
        4 => DataType::Int32,
        8 => DataType::Int64,
        16 => DataType::Decimal128(38, 0),
        _ => return None,
    })
}

fn reinterpret(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data().into_builder().data_type(data_type.clone()).build()?;
    Ok(arrow::array::make_array(data))
}

fn for_each_bits(array: &ArrayRef, f: impl FnMut(usize, i128)) -> Result<(), ArrowError> {
    if array.data_type() == &DataType::Boolean {
        return for_each_integer(&cast(array, &DataType::Int8)?, f);
    }
    let carrier = carrier(array.data_type())
        .ok_or_else(|| ArrowError::InvalidArgumentError(format!("values of {} do not fit into words", array.data_type())))?;
    for_each_integer(&reinterpret(array, &carrier)?, f)
}
