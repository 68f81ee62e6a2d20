//! JSON as PostgreSQL has it, over text: a column of type JSON holds text, and so does what these functions answer. Looking into JSON is
//! the work of datafusion-functions-json; here is what that lacks, and (in [`syntax`]) PostgreSQL's operators and names for it.

pub(super) mod syntax;

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion_functions_json::udfs;
use serde_json::value::RawValue;

use super::aggregates::write_object;
use crate::text::json::texts;

/// Looks into JSON: the value at a path, as JSON.
const GET: &str = "json_get_json";
/// The value at a path, as text.
const GET_TEXT: &str = "json_as_text";
/// Whether there is a value at a path.
const CONTAINS: &str = "json_contains";

/// Everything about JSON.
pub(crate) fn json_functions() -> Vec<Arc<ScalarUDF>> {
    let ours = Kind::ALL.map(|kind| Arc::new(ScalarUDF::from(JsonFunction::new(kind))));
    let theirs = [udfs::json_get_json_udf(), udfs::json_as_text_udf(), udfs::json_contains_udf()];
    ours.into_iter().chain(theirs).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Any value as JSON.
    ToJson,
    /// Keys and JSON values in turn.
    Object,
    /// The same as `jsonb`.
    BinaryObject,
    /// JSON values.
    Array,
    TypeOf,
    ArrayLength,
    /// A list of the elements of an array, as JSON.
    Elements,
    /// The same as text.
    ElementTexts,
    /// A list of the keys of an object.
    Keys,
    /// A list of the values of an object, as JSON.
    Values,
    /// The same as text.
    ValueTexts,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::ToJson,
        Kind::Object,
        Kind::BinaryObject,
        Kind::Array,
        Kind::TypeOf,
        Kind::ArrayLength,
        Kind::Elements,
        Kind::ElementTexts,
        Kind::Keys,
        Kind::Values,
        Kind::ValueTexts,
    ];

    fn names(self) -> &'static [&'static str] {
        match self {
            Kind::ToJson => &["to_json", "to_jsonb", "row_to_json"],
            Kind::Object => &["json_build_object"],
            Kind::BinaryObject => &["jsonb_build_object"],
            Kind::Array => &["json_build_array", "jsonb_build_array"],
            Kind::TypeOf => &["json_typeof", "jsonb_typeof"],
            Kind::ArrayLength => &["json_array_length", "jsonb_array_length"],
            Kind::Elements => &["json_list"],
            Kind::ElementTexts => &["json_text_list"],
            Kind::Keys => &["json_key_list"],
            Kind::Values => &["json_value_list"],
            Kind::ValueTexts => &["json_value_text_list"],
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Kind::ToJson | Kind::Object | Kind::BinaryObject | Kind::Array | Kind::TypeOf => DataType::Utf8,
            Kind::ArrayLength => DataType::Int32,
            Kind::Elements | Kind::ElementTexts | Kind::Keys | Kind::Values | Kind::ValueTexts => {
                DataType::new_list(DataType::Utf8, true)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    kind: Kind,
    signature: Signature,
    aliases: Vec<String>,
}

impl JsonFunction {
    fn new(kind: Kind) -> JsonFunction {
        let aliases = kind.names()[1..].iter().map(|name| (*name).to_owned()).collect();
        JsonFunction { kind, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl ScalarUDFImpl for JsonFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.kind.names()[0]
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::ToJson, [one]) => Ok(vec![one.clone()]),
            (Kind::Object | Kind::BinaryObject, _) if types.len() % 2 == 1 => {
                Err(DataFusionError::Plan(format!("{} takes keys and values in turn", self.name())))
            }
            (Kind::Object | Kind::BinaryObject | Kind::Array, _) => Ok(vec![DataType::Utf8; types.len()]),
            (Kind::ToJson, _) => Err(DataFusionError::Plan("to_json takes one value".into())),
            (_, [one]) if one.is_string() || one.is_null() => Ok(vec![DataType::Utf8]),
            _ => Err(DataFusionError::Plan(format!("{} takes JSON, which is text", self.name()))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let answer = match (self.kind, columns.as_slice()) {
            (Kind::ToJson, [values]) => to_json(args.arg_fields.first(), values)?,
            (Kind::Object, _) => objects(false, &columns, rows)?,
            (Kind::BinaryObject, _) => objects(true, &columns, rows)?,
            (Kind::Array, _) => arrays(&columns, rows),
            (kind, [json]) => inspected(kind, json.as_string::<i32>())?,
            _ => return Err(DataFusionError::Internal(format!("{} takes one value", self.name()))),
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answer, 0)?));
        }
        Ok(ColumnarValue::Array(answer))
    }
}

fn to_json(field: Option<&FieldRef>, values: &ArrayRef) -> Result<ArrayRef> {
    // texts of intervals are not what arrow-json calls them
    let values = match values.data_type() {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Null => cast(values, &DataType::Utf8)?,
        _ => Arc::clone(values),
    };
    let fallback = Arc::new(Field::new("value", values.data_type().clone(), true));
    let field = field.filter(|field| field.data_type() == values.data_type()).unwrap_or(&fallback);
    Ok(Arc::new(texts(field, &values)?.into_iter().collect::<StringArray>()))
}

fn objects(binary: bool, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let columns: Vec<&StringArray> = columns.iter().map(|column| column.as_string::<i32>()).collect();
    let mut written = StringBuilder::with_capacity(rows, 0);
    let mut out = Vec::new();
    for row in 0..rows {
        out.clear();
        if columns.iter().step_by(2).any(|keys| keys.is_null(row)) {
            return Err(DataFusionError::Execution("a field name of a JSON object must not be NULL".into()));
        }
        let pairs = columns.chunks_exact(2).map(|pair| (pair[0].value(row), json_or_null(pair[1], row)));
        write_object(binary, pairs, &mut out);
        written.append_value(String::from_utf8_lossy(&out));
    }
    Ok(Arc::new(written.finish()))
}

fn arrays(columns: &[ArrayRef], rows: usize) -> ArrayRef {
    let columns: Vec<&StringArray> = columns.iter().map(|column| column.as_string::<i32>()).collect();
    let row = |row| {
        let values: Vec<&str> = columns.iter().map(|column| json_or_null(column, row)).collect();
        Some(format!("[{}]", values.join(", ")))
    };
    Arc::new((0..rows).map(row).collect::<StringArray>())
}

fn json_or_null(column: &StringArray, row: usize) -> &str {
    if column.is_null(row) { "null" } else { column.value(row) }
}

/// Functions of one JSON text. What is not JSON, or not of the kind that is asked about, has NULL for an answer, as has NULL.
fn inspected(kind: Kind, json: &StringArray) -> Result<ArrayRef> {
    Ok(match kind {
        Kind::TypeOf => Arc::new(json.iter().map(|text| type_of(text?)).collect::<StringArray>()),
        Kind::ArrayLength => {
            let length = |text: Option<&str>| i32::try_from(elements(text?)?.len()).ok();
            Arc::new(json.iter().map(length).collect::<arrow::array::Int32Array>())
        }
        Kind::Elements | Kind::ElementTexts => lists(json, |text| {
            let elements = elements(text)?;
            Some(elements.into_iter().map(|element| shown(element, kind == Kind::ElementTexts)).collect())
        }),
        _ => lists(json, |text| {
            let pairs = serde_json::from_str::<Pairs<'_>>(text).ok()?.0;
            let part = |(key, value): (String, &RawValue)| match kind {
                Kind::Keys => Some(key),
                _ => shown(value, kind == Kind::ValueTexts),
            };
            Some(pairs.into_iter().map(part).collect())
        }),
    })
}

fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// A value as it stands, or as text: without its quotes, and NULL for null.
fn shown(value: &RawValue, as_text: bool) -> Option<String> {
    if !as_text {
        return Some(value.get().to_owned());
    }
    match value.get().as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => serde_json::from_str(value.get()).ok(),
        _ => Some(value.get().to_owned()),
    }
}

fn type_of(text: &str) -> Option<&'static str> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    Some(match value.get().as_bytes().first()? {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "boolean",
        b'n' => "null",
        _ => "number",
    })
}

fn lists(json: &StringArray, items: impl Fn(&str) -> Option<Vec<Option<String>>>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for text in json {
        match text.and_then(&items) {
            Some(items) => {
                items.into_iter().for_each(|item| lists.values().append_option(item));
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Arc::new(lists.finish())
}

/// The members of an object in the order in which they stand.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(member) = members.next_entry()? {
                    found.push(member);
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Members).map(Pairs)
    }
}
