//! `json_agg`, `json_object_agg` and their siblings: DataFusion's `array_agg`, with ORDER BY and DISTINCT as it has them, whose list is
//! written as JSON. What comes in is JSON text already: [`super::super::json`] puts `to_json` around arguments that are not.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::text::json::write_string;

/// What the list is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `[a, b]`.
    Array,
    /// `{ "k" : v }`: all pairs in their order, as `json` keeps them.
    Object,
    /// `{"k": v}`: of a key the last value, in the order that `jsonb` keeps.
    BinaryObject,
}

/// Writes pairs of key and JSON text as an object.
pub(in crate::plan) fn write_object<'a>(binary: bool, pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    let written = |key: &str, separator: &str, value: &str, out: &mut Vec<u8>| {
        if out.last() != Some(&b'{') {
            out.extend_from_slice(b", ");
        }
        write_string(key, out);
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(value.as_bytes());
    };
    out.push(b'{');
    if binary {
        let last: BTreeMap<(usize, &str), &str> = pairs.map(|(key, value)| ((key.len(), key), value)).collect();
        last.iter().for_each(|((_, key), value)| written(key, ": ", value, out));
    } else {
        pairs.for_each(|(key, value)| written(key, " : ", value, out));
    }
    out.push(b'}');
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct JsonAggregate {
    kind: Kind,
    list: AggregateUDF,
    signature: Signature,
    aliases: Vec<String>,
}

impl JsonAggregate {
    pub(super) fn new(kind: Kind) -> JsonAggregate {
        let aliases = if kind == Kind::Array { vec!["jsonb_agg".to_owned()] } else { Vec::new() };
        JsonAggregate {
            kind,
            list: array_agg_udaf().as_ref().clone(),
            signature: Signature::user_defined(Volatility::Immutable),
            aliases,
        }
    }

    fn input(&self) -> DataType {
        match self.kind {
            Kind::Array => DataType::Utf8,
            Kind::Object | Kind::BinaryObject => {
                let field = |name| Field::new(name, DataType::Utf8, true);
                DataType::Struct(Fields::from(vec![field("key"), field("value")]))
            }
        }
    }
}

impl AggregateUDFImpl for JsonAggregate {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        match self.kind {
            Kind::Array => "json_agg",
            Kind::Object => "json_object_agg",
            Kind::BinaryObject => "jsonb_object_agg",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [_] => Ok(vec![self.input()]),
            _ if self.kind == Kind::Array => Err(DataFusionError::Plan("json_agg takes one value".into())),
            _ => Err(DataFusionError::Plan(format!("{} takes a key and a value", self.name()))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn is_nullable(&self) -> bool {
        true
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.list.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.list.order_sensitivity()
    }

    fn with_beneficial_ordering(self: Arc<Self>, ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let list = self.list.clone().with_beneficial_ordering(ordered)?;
        let (kind, signature, aliases) = (self.kind, self.signature.clone(), self.aliases.clone());
        Ok(list.map(|list| Arc::new(JsonAggregate { kind, list, signature, aliases }) as Arc<dyn AggregateUDFImpl>))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Written { kind: self.kind, list: self.list.accumulator(args)? }))
    }
}

/// A list that is written at the end.
#[derive(Debug)]
struct Written {
    kind: Kind,
    list: Box<dyn Accumulator>,
}

impl Accumulator for Written {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.list.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.list.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.list.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let ScalarValue::List(list) = self.list.evaluate()? else { return Ok(ScalarValue::Utf8(None)) };
        if list.is_null(0) || list.value(0).is_empty() {
            return Ok(ScalarValue::Utf8(None));
        }
        let values = list.value(0);
        let mut out = Vec::new();
        if self.kind == Kind::Array {
            let texts: Vec<&str> = values.as_string::<i32>().iter().map(|text| text.unwrap_or("null")).collect();
            out.push(b'[');
            out.extend_from_slice(texts.join(", ").as_bytes());
            out.push(b']');
        } else {
            let pairs = values.as_struct();
            let (keys, values) = (pairs.column(0).as_string::<i32>(), pairs.column(1).as_string::<i32>());
            if keys.null_count() > 0 {
                return Err(DataFusionError::Execution("a field name of a JSON object must not be NULL".into()));
            }
            let pairs = keys.iter().zip(values).map(|(key, value)| (key.unwrap_or_default(), value.unwrap_or("null")));
            write_object(self.kind == Kind::BinaryObject, pairs, &mut out);
        }
        // all of it was text before
        Ok(ScalarValue::Utf8(Some(String::from_utf8_lossy(&out).into_owned())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.list.size()
    }
}
