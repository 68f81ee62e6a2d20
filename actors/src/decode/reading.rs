//! How the texts of one column's values become values: chosen once per column, applied to every row.

use arrow::datatypes::{DataType, Field, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::column::{Column, Values};
use super::number::{self, NumberFault};
use super::spec::{DecimalHandling, DecodeSpec, Format, SpecError, TIME_PRECISION, TimePrecision, Zone};
use super::time::{TimeText, Unit};

/// What Debezium sends in place of a large value that an update did not touch.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same in a binary column.
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// Why a value could not be taken, without the column's name.
pub(crate) type ValueFault = String;

/// How a decimal is written as a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalText {
    /// Base64 of the big-endian two's complement, to be divided by ten to the power of this.
    Unscaled(i8),
    /// Digits.
    Digits,
}

/// How one column is read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// What one is in a number that stands for a time of day or a stamp; `None`: numbers are not times.
    pub(crate) unit: Option<Unit>,
    /// Whether a number stands for a local stamp rather than an instant.
    pub(crate) local_numbers: bool,
    /// How decimals look in strings.
    pub(crate) decimal_text: DecimalText,
    /// The zone of local stamps, for columns with one.
    zone: Option<Zone>,
    times: TimeText,
    /// Range of an integer type.
    range: (i64, i64),
    precision: u8,
    pub(crate) scale: i8,
    debezium: bool,
}

impl Reading {
    pub(crate) fn new(field: &Field, spec: &DecodeSpec) -> Result<Self, SpecError> {
        let debezium = spec.format == Format::DebeziumJson;
        let times = TimeText::from_option(spec.time_format.as_deref())?;
        let unit = match (&times, debezium) {
            (TimeText::Epoch(unit), _) => Some(*unit),
            (_, true) => debezium_unit(field, spec.time_precision),
            _ => None,
        };
        let range = match field.data_type() {
            DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
            DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            DataType::UInt8 => (0, i64::from(u8::MAX)),
            DataType::UInt16 => (0, i64::from(u16::MAX)),
            DataType::UInt32 => (0, i64::from(u32::MAX)),
            DataType::UInt64 => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        let (precision, scale) = match field.data_type() {
            DataType::Decimal128(precision, scale) => (*precision, *scale),
            _ => (38, 0),
        };
        let decimal_text = match (debezium, spec.decimal_handling) {
            (true, DecimalHandling::Precise) => DecimalText::Unscaled(scale),
            _ => DecimalText::Digits,
        };
        let zone = match field.data_type() {
            DataType::Timestamp(_, Some(_)) => Some(spec.zone),
            _ => None,
        };
        let local_numbers = debezium && !matches!(times, TimeText::Epoch(_));
        Ok(Reading { unit, local_numbers, decimal_text, zone, times, range, precision, scale, debezium })
    }

    /// Writes a number, a JSON token or a CSV field that looks like one.
    pub(crate) fn number(&self, column: &mut Column, text: &[u8]) -> Result<(), ValueFault> {
        match &mut column.values {
            Values::Int16(values) => values.push(i16::try_from(self.integer(text)?).unwrap_or_default()),
            Values::Int32(values) => values.push(i32::try_from(self.integer(text)?).unwrap_or_default()),
            Values::Int64(values) => values.push(self.integer(text)?),
            #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest float is what REAL means")]
            Values::Float32(values) => values.push(float(text)? as f32),
            Values::Float64(values) => values.push(float(text)?),
            Values::Decimal(values) => values.push(self.decimal(text)?),
            Values::Date(values) => {
                let days = number::integer(text).ok().and_then(|days| i32::try_from(days).ok());
                match days {
                    Some(days) if self.debezium => values.push(days),
                    _ => return Err(self.unexpected("a date", text)),
                }
            }
            Values::Time(values) => values.push(self.micros("a time of day", text)?),
            Values::Stamp(values) => {
                let micros = self.micros("a timestamp", text)?;
                values.push(match self.zone {
                    Some(zone) if self.local_numbers => {
                        zone.to_utc(micros).ok_or_else(|| self.unexpected("a timestamp", text))?
                    }
                    _ => micros,
                });
            }
            Values::Text(values) => fitting(values.push(text))?,
            Values::Bool(_) => return Err(self.unexpected("true or false", text)),
            Values::Binary(_) => return Err(self.unexpected("binary data", text)),
        }
        column.wrote();
        Ok(())
    }

    /// Writes a string: what stood between the quotes, unescaped, or a CSV field.
    pub(crate) fn text(&self, column: &mut Column, text: &str) -> Result<(), ValueFault> {
        if self.debezium && text.len() == UNAVAILABLE.len() && text == UNAVAILABLE {
            return Err(unavailable());
        }
        let bytes = text.as_bytes();
        match &mut column.values {
            Values::Text(values) => fitting(values.push(bytes))?,
            Values::Date(values) => values.push(self.times.date(text).ok_or_else(|| self.unexpected("a date", bytes))?),
            Values::Time(values) => {
                values.push(self.times.time_of_day(text).ok_or_else(|| self.unexpected("a time of day", bytes))?);
            }
            Values::Stamp(values) => {
                values.push(self.times.stamp(text, self.zone).ok_or_else(|| self.unexpected("a timestamp", bytes))?);
            }
            Values::Float32(_) | Values::Float64(_) if number::float(bytes).is_ok_and(|value| !value.is_finite()) => {
                return self.number(column, bytes);
            }
            Values::Decimal(values) => values.push(match self.decimal_text {
                DecimalText::Digits if self.debezium => self.decimal(bytes)?,
                DecimalText::Unscaled(scale) => {
                    let unscaled = unscaled(text).ok_or_else(|| match number::float(bytes) {
                        Ok(_) => format!("{} is not base64 of a decimal: set decimal.handling.mode to string", shown(bytes)),
                        Err(_) => self.unexpected("base64 of a decimal", bytes),
                    })?;
                    number::rescale(unscaled, scale, self.scale, self.precision).map_err(|fault| self.fault(fault, bytes))?
                }
                DecimalText::Digits => return Err(self.unexpected("a number", bytes)),
            }),
            Values::Binary(values) => {
                if self.debezium && text == UNAVAILABLE_BASE64 {
                    return Err(unavailable());
                }
                fitting(values.push(&binary(text).ok_or_else(|| self.unexpected("base64 of binary data", bytes))?))?;
            }
            Values::Bool(_) => return Err(self.unexpected("true or false", bytes)),
            Values::Int16(_) | Values::Int32(_) | Values::Int64(_) => return Err(self.unexpected("an integer", bytes)),
            Values::Float32(_) | Values::Float64(_) => return Err(self.unexpected("a number", bytes)),
        }
        column.wrote();
        Ok(())
    }

    /// Writes a truth value.
    pub(crate) fn truth(&self, column: &mut Column, value: bool) -> Result<(), ValueFault> {
        let text = if value { "true" } else { "false" };
        match &mut column.values {
            Values::Bool(values) => values.append(value),
            Values::Text(values) => fitting(values.push(text.as_bytes()))?,
            _ => return Err(self.unexpected("a value of its type", text.as_bytes())),
        }
        column.wrote();
        Ok(())
    }

    /// Writes an object or an array: its JSON text into TEXT, Debezium's `{"scale", "value"}` into a decimal.
    pub(crate) fn nested(&self, column: &mut Column, json: &str) -> Result<(), ValueFault> {
        match &mut column.values {
            Values::Text(values) => {
                if self.debezium && is_unavailable_array(json) {
                    return Err(unavailable());
                }
                fitting(values.push(json.as_bytes()))?;
            }
            Values::Decimal(values) if self.debezium => {
                let value = variable_scale(json).ok_or_else(|| self.unexpected("a decimal", json.as_bytes()))?;
                let unscaled = number::rescale(value.0, value.1, self.scale, self.precision);
                values.push(unscaled.map_err(|fault| self.fault(fault, json.as_bytes()))?);
            }
            _ => return Err(self.unexpected("a value of its type", json.as_bytes())),
        }
        column.wrote();
        Ok(())
    }

    /// Writes a CSV field, whose type is the column's.
    pub(crate) fn field(&self, column: &mut Column, text: &str) -> Result<(), ValueFault> {
        match &column.values {
            Values::Bool(_) => match text.trim() {
                "true" | "t" | "TRUE" | "True" | "T" | "1" | "yes" | "y" | "on" => self.truth(column, true),
                "false" | "f" | "FALSE" | "False" | "F" | "0" | "no" | "n" | "off" => self.truth(column, false),
                other => Err(self.unexpected("true or false", other.as_bytes())),
            },
            Values::Int16(_)
            | Values::Int32(_)
            | Values::Int64(_)
            | Values::Float32(_)
            | Values::Float64(_)
            | Values::Decimal(_) => self.number(column, text.trim().as_bytes()),
            Values::Time(_) | Values::Stamp(_) if self.unit.is_some() => self.number(column, text.trim().as_bytes()),
            Values::Date(_) | Values::Time(_) | Values::Stamp(_) => self.text(column, text.trim()),
            Values::Text(_) | Values::Binary(_) => self.text(column, text),
        }
    }

    fn integer(&self, text: &[u8]) -> Result<i64, ValueFault> {
        let value = number::integer(text).map_err(|fault| match fault {
            NumberFault::Syntax => self.unexpected("an integer", text),
            other => self.fault(other, text),
        })?;
        if (self.range.0..=self.range.1).contains(&value) { Ok(value) } else { Err(self.fault(NumberFault::Range, text)) }
    }

    fn decimal(&self, text: &[u8]) -> Result<i128, ValueFault> {
        number::decimal(text, self.precision, self.scale).map_err(|fault| self.fault(fault, text))
    }

    fn micros(&self, what: &str, text: &[u8]) -> Result<i64, ValueFault> {
        let Some(unit) = self.unit else {
            return Err(format!(
                "{} is a number where {what} is written as text: set time_format to epoch_ms or its like",
                shown(text)
            ));
        };
        let number = number::integer(text).map_err(|fault| self.fault(fault, text))?;
        unit.to_micros(number).ok_or_else(|| self.fault(NumberFault::Range, text))
    }

    fn fault(&self, fault: NumberFault, text: &[u8]) -> ValueFault {
        match fault {
            NumberFault::Syntax => format!("{} is not a number", shown(text)),
            NumberFault::Range => format!("{} is out of range", shown(text)),
            NumberFault::Fraction => format!("{} is not a whole number", shown(text)),
        }
    }

    fn unexpected(&self, expected: &str, text: &[u8]) -> ValueFault {
        format!("{} is not {expected}", shown(text))
    }

    /// The range that an integer must lie in.
    #[inline]
    pub(crate) fn in_range(&self, value: i64) -> bool {
        self.range.0 <= value && value <= self.range.1
    }

    /// Whether an unscaled decimal has no more digits than the column's type.
    #[inline]
    pub(crate) fn fits_precision(&self, value: i128) -> bool {
        value.unsigned_abs() < number::POWERS_OF_TEN[usize::from(self.precision.min(38))].unsigned_abs()
    }

    /// Whether a number is a stamp that needs no zone.
    #[inline]
    pub(crate) fn plain_unit(&self) -> Option<Unit> {
        match self.zone {
            Some(zone) if self.local_numbers && zone != Zone::Utc => None,
            _ => self.unit,
        }
    }
}

/// Unit of Debezium's number for a column, where messages carry no schema.
fn debezium_unit(field: &Field, mode: TimePrecision) -> Option<Unit> {
    let coarse = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) | DataType::Time32(_) => true,
        _ => field.metadata().get(TIME_PRECISION).and_then(|p| p.parse::<u8>().ok()).is_some_and(|precision| precision <= 3),
    };
    let time_of_day = matches!(field.data_type(), DataType::Time32(_) | DataType::Time64(_));
    match mode {
        TimePrecision::Adaptive if coarse => Some(Unit::Milliseconds),
        TimePrecision::AdaptiveTimeMicroseconds if coarse && !time_of_day => Some(Unit::Milliseconds),
        TimePrecision::Adaptive | TimePrecision::AdaptiveTimeMicroseconds => Some(Unit::Microseconds),
        TimePrecision::Connect => Some(Unit::Milliseconds),
        TimePrecision::IsoString => None,
    }
}

fn float(text: &[u8]) -> Result<f64, ValueFault> {
    number::float(text).map_err(|fault| match fault {
        NumberFault::Range => format!("{} is out of range", shown(text)),
        _ => format!("{} is not a number", shown(text)),
    })
}

fn fitting(pushed: bool) -> Result<(), ValueFault> {
    if pushed { Ok(()) } else { Err("the value is too large for one batch".into()) }
}

fn unavailable() -> ValueFault {
    "the message leaves out an unchanged large value (TOAST): set REPLICA IDENTITY FULL on the table".into()
}

/// Base64 of a big-endian two's complement of at most 16 bytes.
fn unscaled(text: &str) -> Option<i128> {
    let mut buffer = [0_u8; 32];
    let length = BASE64.decode_slice(text, &mut buffer).ok()?;
    let bytes = &buffer[..length];
    let negative = bytes.first()? & 0x80 != 0;
    // Leading bytes that only repeat the sign may be more than 16.
    let filler = if negative { 0xff } else { 0 };
    let start = bytes.iter().take_while(|byte| **byte == filler).count().min(length.saturating_sub(1));
    let significant = &bytes[start..];
    if significant.len() > 16 || significant.len() == 16 && (significant[0] & 0x80 != 0) != negative {
        return None;
    }
    let mut wide = [filler; 16];
    wide[16 - significant.len()..].copy_from_slice(significant);
    Some(i128::from_be_bytes(wide))
}

/// `\x…` or base64.
fn binary(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) if hex.len().is_multiple_of(2) => {
            hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
        }
        _ => BASE64.decode(text).ok(),
    }
}

/// Debezium's form of a decimal without a declared scale: `{"scale": 2, "value": "<base64>"}`. Gives unscaled value and scale.
fn variable_scale(json: &str) -> Option<(i128, i8)> {
    #[derive(serde::Deserialize)]
    struct VariableScaleDecimal<'a> {
        scale: i8,
        #[serde(borrow)]
        value: std::borrow::Cow<'a, str>,
    }
    let decimal: VariableScaleDecimal<'_> = sonic_rs::from_str(json).ok()?;
    Some((unscaled(&decimal.value)?, decimal.scale))
}

/// What stands for an unavailable array: one placeholder, or the placeholder's bytes as numbers.
fn is_unavailable_array(json: &str) -> bool {
    if !json.starts_with('[') || json.len() > 200 {
        return false;
    }
    if let Ok(texts) = sonic_rs::from_str::<Vec<String>>(json) {
        return texts.len() == 1 && (texts[0] == UNAVAILABLE || texts[0] == UNAVAILABLE_BASE64);
    }
    sonic_rs::from_str::<Vec<u8>>(json).is_ok_and(|bytes| bytes == UNAVAILABLE.as_bytes())
}

/// The beginning of a value, quoted, for messages.
pub(crate) fn shown(text: &[u8]) -> String {
    const LENGTH_MAX: usize = 80;
    let beginning = String::from_utf8_lossy(&text[..text.len().min(LENGTH_MAX)]);
    if text.len() > LENGTH_MAX { format!("\"{beginning}…\" ({} bytes)", text.len()) } else { format!("\"{beginning}\"") }
}
