use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use serde_json::value::RawValue;

use super::*;
use crate::decode::model::{BIGINT, INT, MONEY, Model, STAMP, TEXT, schema, stamp_utc};
use crate::decode::{DecimalHandling, Format, Message, TimePrecision};

mod bad_input;

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/debezium")
}

fn trips() -> SchemaRef {
    let money = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge", "total_amount"];
    let mut columns = vec![
        ("id!", BIGINT),
        ("vendor_id!", INT),
        ("pickup_datetime!", STAMP),
        ("dropoff_datetime!", STAMP),
        ("passenger_count", DataType::Int16),
        ("trip_distance", DataType::Float64),
        ("rate_code_id", DataType::Int16),
        ("store_and_fwd_flag", TEXT),
        ("pickup_location_id!", INT),
        ("dropoff_location_id!", INT),
        ("payment_type", DataType::Int16),
    ];
    columns.extend(money.map(|name| (name, MONEY)));
    columns.extend([("congestion_surcharge", MONEY), ("airport_fee", MONEY)]);
    schema(columns)
}

fn vendors() -> SchemaRef {
    schema([("id!", INT), ("name!", TEXT), ("active!", DataType::Boolean), ("updated_at!", stamp_utc())])
}

fn payment_types() -> SchemaRef {
    schema([("id!", INT), ("description!", TEXT)])
}

fn spec(declared: SchemaRef, key: &[&str]) -> DecodeSpec {
    DecodeSpec::new("public.recorded", declared, key.iter().map(|name| (*name).to_owned()).collect(), Format::DebeziumJson)
}

/// Replays a recording twice, as lines of a dumped topic and as messages: both must come to the same.
fn replay(recording: &str, spec: &DecodeSpec) -> Model {
    let text = std::fs::read_to_string(recordings().join(format!("{recording}.ndjson"))).unwrap();
    let spec = Arc::new(spec.clone());
    let mut by_lines = Model::new(&spec);
    let mut decoder = DebeziumDecoder::new(&spec).unwrap();
    let file: Arc<str> = recording.into();
    let input = Input::Lines { file: &file, first_line: 1, bytes: text.as_bytes(), header: None, last: true };
    assert_eq!(decoder.decode(input).unwrap(), text.len());
    by_lines.apply(decoder.take());

    #[derive(serde::Deserialize)]
    struct Record<'a> {
        topic: String,
        partition: i32,
        offset: i64,
        #[serde(borrow)]
        key: &'a RawValue,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let mut by_messages = Model::new(&spec);
    let mut decoder = DebeziumDecoder::new(&spec).unwrap();
    for line in text.lines() {
        let record: Record<'_> = serde_json::from_str(line).unwrap();
        let topic: Arc<str> = record.topic.into();
        let present = |raw: &'static str, value: &'_ RawValue| (value.get() != raw).then(|| value.get().as_bytes().to_vec());
        let (key, value) = (present("null", record.key), present("null", record.value));
        let (partition, offset) = (record.partition, record.offset);
        let message = Message { topic: &topic, partition, offset, key: key.as_deref(), value: value.as_deref() };
        decoder.decode(Input::Message(message)).unwrap();
        // A hand-out after every message must not change anything.
        by_messages.apply(decoder.take());
    }
    assert_eq!(by_lines.rows(), by_messages.rows(), "{recording}");
    assert_eq!(by_lines.counters, by_messages.counters, "{recording}");
    by_lines
}

#[test]
fn every_setting_of_the_taxi_database_comes_to_the_same_end() {
    let precise = |spec: DecodeSpec| spec;
    let double = |spec: DecodeSpec| DecodeSpec { decimal_handling: DecimalHandling::Double, ..spec };
    let text = |spec: DecodeSpec| DecodeSpec { decimal_handling: DecimalHandling::String, ..spec };
    let connect = |spec| DecodeSpec { time_precision: TimePrecision::Connect, ..text(spec) };
    let iso = |spec| DecodeSpec { time_precision: TimePrecision::IsoString, ..text(spec) };
    let settings: [(&str, &dyn Fn(DecodeSpec) -> DecodeSpec); 7] = [
        ("default", &precise),
        ("full_double", &double),
        ("full_string", &text),
        ("time_connect", &connect),
        ("time_isostring", &iso),
        ("no_tombstones", &text),
        ("with_schemas", &iso), // wrong on purpose: the messages' own schema says better
    ];
    for (setting, with) in settings {
        let of = |table: &str, columns: SchemaRef| replay(&format!("{setting}/lakehouse.{table}"), &with(spec(columns, &["id"])));
        let (trips, vendors, payment_types) =
            (of("trips", trips()), of("vendors", vendors()), of("payment_types", payment_types()));
        for model in [&trips, &vendors, &payment_types] {
            assert!(model.errors.is_empty(), "{setting}: {:?}", model.reasons());
            assert_eq!(model.counters.ignored_fields, 0, "{setting}");
        }
        assert!(trips.ids().is_empty() && trips.ops.contains(&Op::Upsert), "{setting}: truncated at the end");
        assert_eq!(vendors.ids(), [1], "{setting}");
        assert_eq!(payment_types.ids(), [1], "{setting}");
    }
}

#[test]
fn all_settings_say_the_same_of_every_trip() {
    let log = |setting: &str, decimals, times| {
        let spec = DecodeSpec {
            decimal_handling: decimals,
            time_precision: times,
            envelope: EnvelopeMode::Append,
            ..spec(trips(), &[])
        };
        replay(&format!("{setting}/lakehouse.trips"), &spec)
    };
    let precise = log("default", DecimalHandling::Precise, TimePrecision::Adaptive);
    assert!(precise.rows().len() >= 8 && precise.errors.is_empty() && precise.counters.not_inserts > 0);
    let other = [
        log("full_double", DecimalHandling::Double, TimePrecision::Adaptive),
        log("full_string", DecimalHandling::String, TimePrecision::Adaptive),
        log("time_isostring", DecimalHandling::String, TimePrecision::IsoString),
        log("with_schemas", DecimalHandling::Double, TimePrecision::Connect),
    ];
    for model in other {
        assert_eq!(model.rows(), precise.rows());
    }
}

#[test]
fn messages_that_come_again_after_a_crash_change_nothing() {
    let model = replay("redelivery/lakehouse.vendors", &spec(vendors(), &["id"]));
    assert_eq!(model.ids(), [1, 2, 6, 20, 21, 22]);
    assert!(model.errors.is_empty());
}

#[test]
fn a_table_without_a_key_is_a_bag_of_rows() {
    let events = schema([("at", stamp_utc()), ("kind", TEXT), ("amount", MONEY)]);
    let spec_of_events = spec(events, &[]);
    assert_eq!(spec_of_events.envelope, EnvelopeMode::Changes);
    let model = replay("no_key/lakehouse.events", &spec_of_events);
    assert!(model.rows().is_empty() && model.errors.is_empty());
    assert_eq!(model.ops.iter().filter(|op| **op == Op::Retract).count(), 3);
    assert_eq!(model.counters.ignored_messages, 2, "tombstones without a key");
    let meters = spec(schema([("meter!", TEXT), ("reading!", INT), ("note", TEXT)]), &["meter", "reading"]);
    let model = replay("no_key/lakehouse.meters", &meters);
    let keys: Vec<String> = model.rows().iter().map(|(row, _)| format!("{}{}", row[0], row[1])).collect();
    assert_eq!(keys, ["m11", "m13"]);
}

#[test]
fn an_incremental_snapshot_runs_into_the_stream() {
    let mut spec = spec(trips(), &["id"]);
    spec.schema = schema([("id!", BIGINT), ("tip_amount", MONEY), ("_op", TEXT), ("_lsn", BIGINT)]);
    let model = replay("incremental_snapshot/lakehouse.trips", &spec);
    assert_eq!(model.ids(), [1, 2, 3, 4, 5, 6, 7, 8, 10]);
    assert_eq!(model.row("3")[1], "9.99");
    assert!(model.rows().iter().any(|(row, _)| row[2] == "r" && row[3] == "∅"), "such rows have no place in the log");
}

#[test]
fn every_kind_of_value_in_every_setting() {
    let columns = [
        ("id!", BIGINT),
        ("c_bool", DataType::Boolean),
        ("c_smallint", DataType::Int16),
        ("c_real", DataType::Float32),
        ("c_double", DataType::Float64),
        ("c_numeric_10_2", MONEY),
        ("c_numeric_38_9", DataType::Decimal128(38, 9)),
        ("c_numeric", DataType::Decimal128(38, 6)),
        ("c_bytea", DataType::Binary),
        ("c_date", DataType::Date32),
        ("c_time", DataType::Time64(TimeUnit::Microsecond)),
        ("c_timestamp", STAMP),
        ("c_timestamptz", stamp_utc()),
        ("c_uuid", TEXT),
        ("c_jsonb", TEXT),
        ("c_int_array", TEXT),
        ("c_timestamp_3", STAMP),
        ("c_time_0", DataType::Time64(TimeUnit::Microsecond)),
        ("c_timetz", TEXT),
    ];
    let coarse = |field: &arrow::datatypes::FieldRef| {
        let precision = match field.name().as_str() {
            "c_timestamp_3" => "3",
            "c_time_0" => "0",
            _ => return Arc::clone(field),
        };
        let metadata = [(crate::decode::TIME_PRECISION.to_owned(), precision.to_owned())].into();
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    };
    let plain = schema(columns);
    let declared: SchemaRef = Arc::new(arrow::datatypes::Schema::new(plain.fields().iter().map(coarse).collect::<Vec<_>>()));
    let with =
        |decimals, times| DecodeSpec { decimal_handling: decimals, time_precision: times, ..spec(declared.clone(), &["id"]) };
    for (setting, spec, micros) in [
        ("types_precise", with(DecimalHandling::Precise, TimePrecision::Adaptive), "123456"),
        ("types_microseconds", with(DecimalHandling::String, TimePrecision::AdaptiveTimeMicroseconds), "123456"),
        ("types_double", with(DecimalHandling::Double, TimePrecision::Connect), "123"),
        ("types_string", with(DecimalHandling::String, TimePrecision::IsoString), "123456"),
        ("types_with_schemas", with(DecimalHandling::Double, TimePrecision::IsoString), "123456"),
    ] {
        let model = replay(&format!("{setting}/lakehouse.all_types"), &spec);
        // What does not fit DECIMAL(38, 6) is put aside: rows 4 and 18 have a `numeric` of more than 32 digits before the point,
        // so the rows that are there and those that were refused make up the table together.
        let refused: Vec<&str> = model.errors.iter().map(|error| error[2].as_str()).collect();
        assert!(refused.iter().all(|reason| reason.starts_with("column c_numeric")), "{setting}: {refused:?}");
        let mut wanted: Vec<i64> = (4..=22).collect();
        wanted.insert(0, 1);
        assert!(model.ids().iter().all(|id| wanted.contains(id)), "{setting}");
        assert_eq!(wanted.len(), model.ids().len() + refused.len(), "{setting}: {refused:?}");
        let row = model.row("1");
        let stamp = format!("2024-03-10T02:30:00.{micros}");
        let expected = [
            "1",
            "∅",
            "7",
            "1.5",
            "2.25",
            "0.05",
            "12345.678900000",
            "3.141590",
            "00ff10",
            "2024-03-10",
            &format!("02:30:00.{micros}"),
            &stamp,
            "2024-03-10T07:30:00.123456Z",
            "∅",
            "∅",
            "[1,2,3,4]",
            "2024-03-10T02:30:00.123",
            "02:30:01",
            "07:30:00.5Z",
        ];
        assert_eq!(row, expected, "{setting}");
        assert_eq!(model.row("12")[4], "NaN", "{setting}");
        assert_eq!(model.row("13")[4], "-inf", "{setting}");
        assert_eq!(model.row("8")[12], "2024-11-03T05:30:00Z", "{setting}");
        assert!(model.counters.ignored_fields > 0, "{setting}: columns that are not declared are counted");
    }
}

#[test]
fn values_left_out_are_never_taken_for_values() {
    let text = |name| (name, TEXT);
    let columns = || {
        let names = std::fs::read_to_string(recordings().join("toast/lakehouse.documents.ndjson")).unwrap();
        let first: serde_json::Value = serde_json::from_str(names.lines().next().unwrap()).unwrap();
        let mut names: Vec<String> = first["value"]["after"].as_object().unwrap().keys().cloned().collect();
        names.retain(|name| name != "id");
        names
    };
    let names = columns();
    let declared = schema(std::iter::once(("id!", BIGINT)).chain(names.iter().map(|name| text(name.as_str()))));
    let model = replay("toast/lakehouse.documents", &spec(declared.clone(), &["id"]));
    assert!(!model.errors.is_empty());
    assert!(model.errors.iter().all(|error| error[2].contains("REPLICA IDENTITY FULL")), "{:?}", model.reasons());
    assert!(model.rows().iter().all(|(row, _)| !row.iter().any(|cell| cell.contains("__debezium_unavailable"))));
    let model = replay("toast/lakehouse.documents_full", &spec(declared, &["id"]));
    assert!(model.errors.is_empty());
    assert_eq!(model.ids(), [2]);
}

#[test]
fn columns_come_and_go_without_a_word() {
    let declared = schema([("id!", BIGINT), ("name", TEXT), ("active", TEXT)]);
    let model = replay("schema_change/lakehouse.vendors", &spec(declared, &["id"]));
    assert_eq!(model.ids(), [1, 2, 6, 11, 12, 13, 14, 15, 5_000_000_014]);
    assert!(model.errors.is_empty(), "{:?}", model.reasons());
    assert!(model.counters.ignored_fields > 0);
}

#[test]
fn an_event_log_has_a_row_for_every_change() {
    let mut spec = spec(vendors(), &[]);
    spec.envelope = EnvelopeMode::Events;
    spec.schema = schema([
        ("id!", INT),
        ("_op", TEXT),
        ("_topic", TEXT),
        ("_partition", INT),
        ("_offset", BIGINT),
        ("_lsn", BIGINT),
        ("_tx_id", BIGINT),
        ("_source_ts", stamp_utc()),
    ]);
    let model = replay("full_double/lakehouse.vendors", &spec);
    let ops: String = {
        let mut rows: Vec<_> = model.rows().into_iter().map(|(row, _)| row).collect();
        rows.sort_by_key(|row| row[4].parse::<i64>().unwrap());
        assert!(rows.iter().all(|row| row[2] == "lakehouse.vendors" && row[3] == "0"));
        assert!(rows.iter().all(|row| row[5].parse::<i64>().is_ok() && row[6].parse::<i64>().is_ok() && row[7].ends_with('Z')));
        rows.iter().map(|row| row[1].as_str()).collect()
    };
    assert!(ops.starts_with('r') && ops.contains('c') && ops.contains('u') && ops.contains('d'), "{ops}");
    assert!(model.errors.iter().all(|error| error[2].contains("TRUNCATE")), "{:?}", model.reasons());
}

#[test]
fn what_is_no_change_is_passed_over() {
    for topic in ["messages/lakehouse.message", "default/__debezium-heartbeat.lakehouse", "default/lakehouse.transaction"] {
        let model = replay(topic, &spec(payment_types(), &["id"]));
        // The keys of heartbeats and marks are not the table's, so nothing may be deleted by them either.
        assert!(model.ops.is_empty() && model.errors.is_empty(), "{topic}: {:?}", model.reasons());
        assert_eq!(model.counters.ignored_messages, model.counters.inputs, "{topic}");
    }
}
