//! `AT TIME ZONE` as PostgreSQL means it: a timestamp with time zone becomes the wall clock's time there, one without is taken
//! as the wall clock's time there and becomes an instant. (DataFusion's own keeps instants and only changes how they are shown.)
//!
//! A wall-clock time that occurs twice (the hour repeated in autumn) is the later one, standard time; one that never occurs (the
//! hour skipped in spring) is read with the offset that held before, as PostgreSQL does.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::types::{timestamp, timestamptz};

/// PostgreSQL's function behind the syntax.
pub(super) const FUNCTION: &str = "timezone";

/// `timezone(zone, time)`.
pub(crate) fn timezone_function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(AtTimeZone { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

impl ScalarUDFImpl for AtTimeZone {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [zone, time] => {
                if !matches!(zone, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null) {
                    return Err(DataFusionError::Plan(format!("a time zone is a name, not {zone}")));
                }
                let time = match time {
                    DataType::Timestamp(_, Some(_)) => timestamptz(),
                    DataType::Timestamp(_, None) | DataType::Date32 | DataType::Utf8 | DataType::Null => timestamp(),
                    other => return Err(DataFusionError::Plan(format!("AT TIME ZONE takes a timestamp, not {other}"))),
                };
                Ok(vec![DataType::Utf8, time])
            }
            _ => Err(DataFusionError::Plan("timezone takes a zone and a time".into())),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types.get(1) {
            Some(DataType::Timestamp(_, Some(_))) => timestamp(),
            _ => timestamptz(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let [zone, time] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("timezone takes a zone and a time".into()));
        };
        let length = if constant { 1 } else { rows };
        let time = time.to_array(length)?;
        let zones = zone.to_array(if matches!(zone, ColumnarValue::Scalar(_)) { 1 } else { length })?;
        let converted = convert(zones.as_string::<i32>(), &time)?;
        if constant {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&converted, 0)?));
        }
        Ok(ColumnarValue::Array(converted))
    }
}

/// `zones` has one entry for all rows, or one for each.
fn convert(zones: &StringArray, time: &ArrayRef) -> Result<ArrayRef> {
    let to_wall = matches!(time.data_type(), DataType::Timestamp(_, Some(_)));
    let values = cast(time, &if to_wall { timestamptz() } else { timestamp() })?;
    let values = values.as_primitive::<TimestampMicrosecondType>();
    let mut known: Option<(&str, Tz)> = None;
    let mut converted = TimestampMicrosecondArray::builder(values.len());
    for row in 0..values.len() {
        let zone_row = if zones.len() == 1 { 0 } else { row };
        if values.is_null(row) || zones.is_null(zone_row) {
            converted.append_null();
            continue;
        }
        let name = zones.value(zone_row);
        let zone = match known {
            Some((same, zone)) if same == name => zone,
            _ => parse_zone(name)?,
        };
        known = Some((name, zone));
        // A time beyond what calendars reach has no wall clock.
        converted.append_option(DateTime::from_timestamp_micros(values.value(row)).and_then(|utc| {
            let moved = if to_wall { to_wall_clock(zone, utc.naive_utc()) } else { to_instant(zone, utc.naive_utc())? };
            Some(moved.and_utc().timestamp_micros())
        }));
    }
    let converted = converted.finish();
    Ok(if to_wall { Arc::new(converted) } else { Arc::new(converted.with_timezone("UTC")) })
}

fn parse_zone(name: &str) -> Result<Tz> {
    let any_case = || TZ_VARIANTS.iter().copied().find(|zone| zone.name().eq_ignore_ascii_case(name));
    name.parse::<Tz>()
        .ok()
        .or_else(any_case)
        .ok_or_else(|| DataFusionError::Execution(format!("time zone {name} is not known: write it as in 'America/New_York'")))
}

fn to_wall_clock(zone: Tz, utc: NaiveDateTime) -> NaiveDateTime {
    zone.from_utc_datetime(&utc).naive_local()
}

fn to_instant(zone: Tz, wall: NaiveDateTime) -> Option<NaiveDateTime> {
    match zone.from_local_datetime(&wall) {
        MappedLocalTime::Single(time) => Some(time.naive_utc()),
        MappedLocalTime::Ambiguous(_, later) => Some(later.naive_utc()),
        MappedLocalTime::None => {
            let before = zone.offset_from_utc_datetime(&(wall - Duration::days(1))).fix();
            wall.checked_sub_offset(before)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    fn converted(text: &str, zoned: bool) -> i64 {
        let time = TimestampMicrosecondArray::from(vec![micros(text)]);
        let time: ArrayRef = if zoned { Arc::new(time.with_timezone("UTC")) } else { Arc::new(time) };
        convert(&StringArray::from(vec!["America/New_York"]), &time).unwrap().as_primitive::<TimestampMicrosecondType>().value(0)
    }

    #[test]
    fn wall_clocks_of_new_york() {
        assert_eq!(converted("2021-07-01T12:00:00", true), micros("2021-07-01T08:00:00"));
        assert_eq!(converted("2021-07-01T08:00:00", false), micros("2021-07-01T12:00:00"));
        // 01:30 on the day the clocks go back is standard time; 02:30 on the day they go forward is 03:30.
        assert_eq!(converted("2021-11-07T01:30:00", false), micros("2021-11-07T06:30:00"));
        assert_eq!(converted("2021-03-14T02:30:00", false), micros("2021-03-14T07:30:00"));
    }

    #[test]
    fn an_unknown_zone_is_an_error() {
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
        assert!(convert(&StringArray::from(vec!["New York"]), &time).unwrap_err().to_string().contains("New York is not known"));
    }
}
