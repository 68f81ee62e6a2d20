//! SQL types as Arrow types: one Arrow type for each meaning, so that no two relations hold the same thing in two ways.
//!
//! Timestamps are microseconds (with time zone: UTC), text is `Utf8`, and `NUMERIC` without precision is `Decimal128(38, 10)`.
//! The same mapping serves declared columns and casts in queries.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo};

/// What `NUMERIC` without precision means: 28 digits before the point and 10 after.
pub const NUMERIC_DEFAULT: DataType = DataType::Decimal128(38, 10);

/// `TIMESTAMP`.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// `TIMESTAMP WITH TIME ZONE`.
pub fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

/// The Arrow type of an SQL type.
///
/// # Errors
/// In words, if there is none.
pub fn arrow_type(sql: &SqlType) -> Result<DataType, String> {
    Ok(match sql {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) | SqlType::MediumInt(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) | SqlType::Int64 => DataType::Int64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::Float(info) => float(info),
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float64 => DataType::Float64,
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => decimal(info)?,
        SqlType::Varchar(_)
        | SqlType::Nvarchar(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Text
        | SqlType::String(_)
        | SqlType::JSON
        | SqlType::JSONB
        | SqlType::Uuid
        | SqlType::Regclass => DataType::Utf8,
        SqlType::Bytea | SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) | SqlType::Bytes(_) => DataType::Binary,
        SqlType::Timestamp(_, zone) => match zone {
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => timestamptz(),
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => timestamp(),
        },
        SqlType::Datetime(_) => timestamp(),
        SqlType::Date => DataType::Date32,
        SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => DataType::Time64(TimeUnit::Microsecond),
        SqlType::Interval { .. } => DataType::Interval(IntervalUnit::MonthDayNano),
        SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::AngleBracket(element)) => {
            DataType::new_list(arrow_type(element)?, true)
        }
        SqlType::Custom(name, _) => match name.to_string().to_ascii_lowercase().as_str() {
            "citext" | "name" | "inet" | "string" | "pg_catalog.text" | "pg_catalog.varchar" => DataType::Utf8,
            "long" => DataType::Int64,
            "serial" => DataType::Int32,
            "bigserial" => DataType::Int64,
            _ => return Err(format!("there is no type {name}")),
        },
        other => return Err(format!("the type {other} is not supported")),
    })
}

/// PostgreSQL: FLOAT is double precision, FLOAT(1..24) is real.
fn float(info: &ExactNumberInfo) -> DataType {
    match info {
        ExactNumberInfo::Precision(bits) if *bits <= 24 => DataType::Float32,
        _ => DataType::Float64,
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType, String> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(NUMERIC_DEFAULT),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let fits = (1..=u64::from(DECIMAL128_MAX_PRECISION)).contains(&precision) && (0..=precision as i64).contains(&scale);
    if !fits {
        return Err(format!(
            "DECIMAL({precision}, {scale}) is not supported: at most 38 digits, 0 to all of them after the point"
        ));
    }
    Ok(DataType::Decimal128(precision as u8, scale as i8))
}

/// Lets casts in queries use the same mapping.
#[derive(Debug)]
pub(crate) struct LakeTypes;

impl TypePlanner for LakeTypes {
    fn plan_type(&self, sql_type: &SqlType) -> Result<Option<DataType>> {
        Ok(arrow_type(sql_type).ok())
    }
}

/// The type that a view's column gets: DataFusion's functions may answer in types that SQL does not tell apart.
pub(crate) fn column_type(planned: &DataType) -> DataType {
    match planned {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(_, None) => timestamp(),
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Dictionary(_, value) => column_type(value),
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

/// An Arrow type as SQL writes it.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 => "text".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::List(element) => format!("{}[]", sql_name(element.data_type())),
        other => other.to_string(),
    }
}
