//! Parameters of prepared statements: text or binary on the wire, typed values for the lake.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::{Format, Portal};
use pgwire::error::{PgWireError, PgWireResult};

use super::error::wire;
use super::extended::Prepared;
use super::rows::{EPOCH_DAYS, EPOCH_MICROS};

/// The values bound to a portal.
pub(super) fn values(portal: &Portal<Prepared>) -> PgWireResult<Vec<ScalarValue>> {
    let prepared = &portal.statement.statement;
    let wanted = prepared.parameters.len();
    let given = portal.parameters.len();
    if wanted != given {
        return Err(wire("08P01", format!("the statement has {wanted} parameters, but {given} were bound"), None));
    }
    let value = |(index, raw): (usize, &Option<Bytes>)| {
        let (pg_type, data_type) = &prepared.parameters[index];
        let is_binary = match &portal.parameter_format {
            Format::UnifiedText => false,
            Format::UnifiedBinary => true,
            Format::Individual(codes) => codes.get(index) == Some(&1),
        };
        let Some(raw) = raw else {
            return ScalarValue::try_from(data_type).map_err(|error| invalid(index, pg_type, &error.strip_backtrace()));
        };
        if is_binary { binary(index, pg_type, data_type, raw.clone()) } else { text(index, pg_type, data_type, raw) }
    };
    portal.parameters.iter().enumerate().map(value).collect()
}

fn invalid(index: usize, pg_type: &Type, why: &str) -> PgWireError {
    wire("22P02", format!("parameter ${} is no valid {}: {why}", index + 1, pg_type.name()), None)
}

fn text(index: usize, pg_type: &Type, data_type: &DataType, raw: &[u8]) -> PgWireResult<ScalarValue> {
    let text = std::str::from_utf8(raw).map_err(|_| wire("22021", format!("parameter ${} is not UTF-8", index + 1), None))?;
    if matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        let digits = text.strip_prefix("\\x").ok_or_else(|| invalid(index, pg_type, "bytea must begin with \\x"))?;
        let bytes = unhex(digits.as_bytes()).ok_or_else(|| invalid(index, pg_type, "a hexadecimal digit is wrong"))?;
        return cast(index, pg_type, &ScalarValue::Binary(Some(bytes)), data_type);
    }
    ScalarValue::try_from_string(text.to_owned(), data_type).map_err(|error| invalid(index, pg_type, &error.strip_backtrace()))
}

/// Bytes from pairs of hexadecimal digits.
pub(super) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn cast(index: usize, pg_type: &Type, value: &ScalarValue, data_type: &DataType) -> PgWireResult<ScalarValue> {
    value.cast_to(data_type).map_err(|error| invalid(index, pg_type, &error.strip_backtrace()))
}

fn binary(index: usize, pg_type: &Type, data_type: &DataType, mut raw: Bytes) -> PgWireResult<ScalarValue> {
    let expected = super::rows::type_size(pg_type);
    if expected >= 0 && raw.len() != usize::from(expected.unsigned_abs()) {
        return Err(wire("22P03", format!("parameter ${} has {} bytes, not {expected}", index + 1, raw.len()), None));
    }
    let value = match *pg_type {
        Type::BOOL => ScalarValue::Boolean(Some(raw.get_u8() != 0)),
        Type::INT2 => ScalarValue::Int16(Some(raw.get_i16())),
        Type::INT4 => ScalarValue::Int32(Some(raw.get_i32())),
        Type::INT8 => ScalarValue::Int64(Some(raw.get_i64())),
        Type::FLOAT4 => ScalarValue::Float32(Some(raw.get_f32())),
        Type::FLOAT8 => ScalarValue::Float64(Some(raw.get_f64())),
        Type::DATE => ScalarValue::Date32(Some(raw.get_i32().saturating_add(EPOCH_DAYS))),
        Type::TIME => ScalarValue::Time64Microsecond(Some(raw.get_i64())),
        Type::TIMESTAMP => ScalarValue::TimestampMicrosecond(Some(raw.get_i64().saturating_add(EPOCH_MICROS)), None),
        Type::TIMESTAMPTZ => {
            ScalarValue::TimestampMicrosecond(Some(raw.get_i64().saturating_add(EPOCH_MICROS)), Some("+00:00".into()))
        }
        Type::INTERVAL => {
            let micros = raw.get_i64();
            let days = raw.get_i32();
            let nanoseconds = micros.checked_mul(1_000).ok_or_else(|| invalid(index, pg_type, "it is too long"))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(raw.get_i32(), days, nanoseconds)))
        }
        Type::BYTEA => ScalarValue::Binary(Some(raw.to_vec())),
        Type::NUMERIC => {
            let digits = numeric(&mut raw).ok_or_else(|| invalid(index, pg_type, "its bytes make no number"))?;
            return text(index, pg_type, data_type, digits.as_bytes());
        }
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            return text(index, pg_type, data_type, &raw);
        }
        _ => {
            let hint = Some("send it in text format, or cast it to text in the statement".to_owned());
            return Err(wire(
                "0A000",
                format!("parameter ${} of type {} cannot be read in binary format", index + 1, pg_type.name()),
                hint,
            ));
        }
    };
    cast(index, pg_type, &value, data_type)
}

/// Decimal digits of a binary numeric.
fn numeric(raw: &mut Bytes) -> Option<String> {
    if raw.len() < 8 {
        return None;
    }
    let (groups, weight, sign, scale) = (raw.get_i16(), raw.get_i16(), raw.get_u16(), raw.get_i16());
    match sign {
        0 | 0x4000 => {}
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => return None,
    }
    if groups < 0 || scale < 0 || raw.len() < usize::from(groups.unsigned_abs()) * 2 {
        return None;
    }
    let groups: Vec<u16> = (0..groups).map(|_| raw.get_u16()).collect();
    let group =
        |place: i32| usize::try_from(i32::from(weight) - place).ok().and_then(|index| groups.get(index)).copied().unwrap_or(0);
    let mut text = if sign == 0x4000 { "-".to_owned() } else { String::new() };
    for place in (0..=i32::from(weight).max(0)).rev() {
        text.push_str(&format!("{:04}", group(place)));
    }
    if scale > 0 {
        let places = (i32::from(scale) + 3) / 4;
        let fraction: String = (1..=places).map(|place| format!("{:04}", group(-place))).collect();
        text.push('.');
        text.push_str(fraction.get(..usize::from(scale.unsigned_abs()))?);
    }
    Some(text)
}

/// The value type that a client's own parameter type asks for, where the statement does not say.
pub(super) fn data_type(pg_type: &Type) -> DataType {
    match *pg_type {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::NUMERIC => DataType::Decimal128(38, 10),
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        Type::BYTEA => DataType::Binary,
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_numerics_become_digits() {
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let read = |words: &[u16]| numeric(&mut Bytes::from(bytes(words)));
        assert_eq!(read(&[3, 1, 0, 3, 1, 2345, 6780]).as_deref(), Some("00012345.678"));
        assert_eq!(read(&[1, 0xFFFF, 0x4000, 2, 500]).as_deref(), Some("-0000.05"));
        assert_eq!(read(&[0, 0, 0, 0]).as_deref(), Some("0000"));
        assert_eq!(read(&[5, 0, 0, 0]), None);
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(unhex(b"00fF"), Some(vec![0, 255]));
        assert_eq!(unhex(b"0"), None);
        assert_eq!(unhex(b"zz"), None);
    }
}
