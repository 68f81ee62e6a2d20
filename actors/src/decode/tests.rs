//! All formats through the public interface: made-up rows written and read again, and real data where it is at hand.

use std::fmt::Write as _;
use std::path::PathBuf;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, Int64Array, NullArray, TimestampMicrosecondArray,
};
use arrow::compute::sum;
use arrow::datatypes::Decimal128Type;
use proptest::prelude::*;

use super::model::{BIGINT, INT, MONEY, Model, STAMP, TEXT, schema, stamp_utc};
use super::*;
use crate::sources::files::{FilesOptions, open};
use crate::sources::{Budget, Positions, SourceEvent};

fn spec(declared: SchemaRef, key: &[&str], format: Format) -> DecodeSpec {
    DecodeSpec::new("public.t", declared, key.iter().map(|name| (*name).to_owned()).collect(), format)
}

/// Decodes text, `chunk` bytes at a time, as a reader of a file would.
fn decode_text(spec: &DecodeSpec, text: &[u8], chunk: usize) -> Model {
    let spec = Arc::new(spec.clone());
    let mut decoder = decoder(&spec).unwrap();
    let mut model = Model::new(&spec);
    let file: Arc<str> = "t".into();
    let (header, body) = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) if spec.format == Format::Csv && spec.header => text.split_at(end + 1),
        _ => (&[][..], text),
    };
    let (mut start, mut end, mut line) = (0, 0, if header.is_empty() { 1 } else { 2 });
    while start < body.len() {
        end = (end + chunk).min(body.len());
        let bytes = &body[start..end];
        let input = Input::Lines {
            file: &file,
            first_line: line,
            bytes,
            header: (!header.is_empty()).then_some(header),
            last: end == body.len(),
        };
        let used = decoder.decode(input).unwrap();
        line += bytes[..used].iter().filter(|byte| **byte == b'\n').count() as u64;
        start += used;
        model.apply(decoder.take());
    }
    model
}

/// Reads files to their end.
fn read_files(folder: impl Into<PathBuf>, path: &str, spec: DecodeSpec, mut each: impl FnMut(Decoded)) {
    let options = FilesOptions { watch: false, threads: 2, ..FilesOptions::new(folder, path) };
    let mut reader = open(options, Arc::new(spec), &Positions::default()).unwrap();
    loop {
        match reader.next(Budget::default()).unwrap() {
            SourceEvent::Batch { decoded, .. } => each(decoded),
            SourceEvent::Done => return,
            other => panic!("{other:?}"),
        }
    }
}

/// The folder with real data, if the environment variable LIVELAKE_SHARED_DATA names one.
fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("LIVELAKE_SHARED_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("LIVELAKE_SHARED_DATA names no folder with real data: only made-up data is read");
    }
    folder
}

#[test]
fn csv_as_people_write_it() {
    let declared =
        schema([("id!", INT), ("name", TEXT), ("price", MONEY), ("at", STAMP), ("ok", DataType::Boolean), ("absent", INT)]);
    let mut spec = spec(declared, &["id"], Format::Csv);
    spec.null_markers = vec!["NA".into()];
    let text = "\u{feff}ID,name,other,price, at ,ok\n\
        1,plain,x,1.5,2024-01-01 00:00:00,true\r\n\
        2,\"quoted, with \"\"comma\"\"\nand line\",x,2,2024-01-01T05:00,f\n\
        \r\n\
        3,\"\",x,,,\n\
        4,,x,NA,2024-01-01,1\n\
        5,too,few\n\
        6,bad price,x,cheap,,\r\n\
        7,bad stamp,x,1,31.12.2024,\n\
        ,no key,x,1,,\n\
        8,open,\"x,1,,\n\
        9,last,x,9,,";
    let expected = [
        ("1", ["plain", "1.50", "2024-01-01T00:00:00", "true", "∅"]),
        ("2", ["quoted, with \"comma\"\nand line", "2.00", "2024-01-01T05:00:00", "false", "∅"]),
        ("3", ["", "∅", "∅", "∅", "∅"]),
        ("4", ["∅", "∅", "2024-01-01T00:00:00", "true", "∅"]),
        ("9", ["last", "9.00", "∅", "∅", "∅"]),
    ];
    for chunk in [1, 7, 64, 4096] {
        let model = decode_text(&spec, text.as_bytes(), chunk);
        assert_eq!(model.ids(), [1, 2, 3, 4, 9], "{chunk}");
        for (id, cells) in expected {
            assert_eq!(model.row(id)[1..], cells, "{chunk}");
        }
        let reasons = model.reasons();
        let wanted = [
            "t:8: the record has 3 fields, the header has 6",
            "t:9: column price: \"cheap\" is not a number",
            "t:10: column at: \"31.12.2024\" is not a timestamp",
            "t:11: column id is missing or NULL, which it must not be",
            "t:12: a quote is opened on this line and never closed",
        ];
        assert_eq!(reasons, wanted, "{chunk}");
        assert_eq!(model.counters.ignored_fields, 5, "the column `other`, once a row");
    }
}

#[test]
fn csv_with_other_delimiters_or_without_a_header() {
    let mut spec = spec(schema([("id!", INT), ("name", TEXT)]), &["id"], Format::Csv);
    spec.delimiter = b';';
    assert_eq!(decode_text(&spec, b"name;id\na,b;1\n", 100).row("1")[1], "a,b");
    spec.header = false;
    assert_eq!(decode_text(&spec, b"1;a\n2;b\n", 3).ids(), [1, 2]);
    spec.header = true;
    let mut bytes = b"id;name\n1;a\n2;".to_vec();
    bytes.extend_from_slice(b"\xff\xfe\n3;c\n");
    let model = decode_text(&spec, &bytes, 100);
    assert_eq!((model.ids(), model.reasons()), (vec![1, 3], vec!["t:3: the record is not UTF-8".to_owned()]));
}

#[test]
fn plain_json_lines() {
    let declared = schema([("id!", INT), ("at", stamp_utc()), ("tags", TEXT)]);
    let mut spec = spec(declared, &["id"], Format::Json);
    spec.zone = "-05:00".parse().unwrap();
    let model = decode_text(&spec, b"{\"id\":1,\"at\":\"2024-01-01 00:00:00\",\"tags\":[1, 2]}\n{\"id\":2,\"at\":7}\n[]\n", 1000);
    assert_eq!(model.row("1")[1..], ["2024-01-01T05:00:00Z", "[1, 2]"]);
    assert!(model.reasons()[0].contains("set time_format"), "a number is not guessed at: {:?}", model.reasons());
    assert_eq!(model.errors.len(), 2);
    spec.time_format = Some("epoch_ms".into());
    let model = decode_text(&spec, b"{\"id\":2,\"at\":1000}", 1000);
    assert_eq!(model.row("2")[1], "1970-01-01T00:00:01Z", "an instant, whatever the zone");
}

#[test]
fn messages_of_plain_formats() {
    let declared = schema([("id!", INT), ("name", TEXT)]);
    let topic: Arc<str> = "t".into();
    for (format, value) in [(Format::Json, &b"{\"id\":1,\"name\":\"a\"}"[..]), (Format::Csv, b"1,a")] {
        let spec = Arc::new(spec(declared.clone(), &["id"], format));
        let mut decoder = decoder(&spec).unwrap();
        let message =
            |offset, value| Input::Message(Message { topic: &topic, partition: 0, offset, key: Some(b"{\"id\":1}"), value });
        decoder.decode(message(0, Some(value))).unwrap();
        decoder.decode(message(1, Some(b"\"{"))).unwrap();
        let mut model = Model::new(&spec);
        model.apply(decoder.take());
        assert_eq!((model.row("1")[1].as_str(), model.errors[0][0].as_str()), ("a", "t/0/1"), "{format:?}");
        decoder.decode(message(2, None)).unwrap();
        model.apply(decoder.take());
        assert_eq!(model.ids().is_empty(), format == Format::Json, "a JSON tombstone deletes; CSV has no keys");
    }
}

/// Batches whose column types differ from the declared ones, as month files' do.
fn drifting() -> Vec<RecordBatch> {
    let stamps = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values)) as ArrayRef;
    let batch = |columns: Vec<(&str, ArrayRef)>| {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    };
    vec![
        batch(vec![
            ("ID", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
            ("riders", Arc::new(Float64Array::from(vec![Some(2.0), None]))),
            ("fare", Arc::new(Float64Array::from(vec![14.2, 2.675]))),
            ("fee", Arc::new(NullArray::new(2))),
            ("at", stamps(vec![0, 1_000_000])),
            ("more", Arc::new(Int32Array::from(vec![0, 0]))),
        ]),
        batch(vec![
            ("id", Arc::new(Int64Array::from(vec![Some(3), Some(4), Some(5), None])) as ArrayRef),
            ("riders", Arc::new(Float64Array::from(vec![1.5, 1.0, 1.0, 1.0]))),
            ("fare", Arc::new(Float64Array::from(vec![1.0, f64::NAN, -0.1, 1.0]))),
            ("at", stamps(vec![0; 4])),
        ]),
    ]
}

#[test]
fn batches_whose_types_drift() {
    let declared =
        schema([("id!", BIGINT), ("riders", INT), ("fare", MONEY), ("fee", MONEY), ("at", stamp_utc()), ("_row_number", BIGINT)]);
    let mut spec = spec(declared.project(&[0, 1, 2, 3, 4]).map(Arc::new).unwrap(), &["id"], Format::Parquet);
    (spec.schema, spec.zone) = (declared, "-05:00".parse().unwrap());
    let spec = Arc::new(spec);
    let (mut decoder, mut model) = (decoder(&spec).unwrap(), Model::new(&spec));
    let mut first_row = 1;
    for rows in drifting() {
        decoder.decode(Input::Rows { file: &"m.parquet".into(), first_row, rows: &rows }).unwrap();
        first_row += rows.num_rows() as u64;
    }
    model.apply(decoder.take());
    assert_eq!(model.row("1"), ["1", "2", "14.20", "∅", "1970-01-01T05:00:00Z", "1"]);
    assert_eq!(model.row("2")[..3], ["2", "∅", "2.68"], "half to even by decimal text");
    assert_eq!((model.row("5")[2].as_str(), model.ids()), ("-0.10", vec![1, 2, 5]));
    let reasons = model.reasons();
    assert!(reasons[0].starts_with("m.parquet:3: column riders: 1.5 does not fit"), "{reasons:?}");
    assert!(reasons[1].starts_with("m.parquet:4: column fare: NaN does not fit"), "{reasons:?}");
    assert_eq!(reasons[2], "m.parquet:6: column id is NULL, which it must not be");
    assert!(model.errors[0][1].starts_with("{\"id\":3,"), "the row as JSON: {}", model.errors[0][1]);
}

#[test]
fn a_parquet_file_is_read_by_columns() {
    let folder = tempfile::tempdir().unwrap();
    let batches = drifting();
    let file = std::fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = parquet_writer(file, &batches[0]);
    writer.write(&batches[0]).unwrap();
    writer.close().unwrap();
    let declared = schema([("id!", BIGINT), ("fare", MONEY), ("missing", TEXT)]);
    let mut model = Model::new(&spec(declared.clone(), &["id"], Format::Parquet));
    read_files(folder.path(), "*.parquet", spec(declared, &["id"], Format::Parquet), |decoded| model.apply(decoded));
    assert_eq!(model.row("1"), ["1", "14.20", "∅"]);
    assert_eq!(model.counters.ignored_fields, 2 * 4);
    let declared = schema([("id!", BIGINT), ("must!", TEXT)]);
    let mut model = Model::new(&spec(declared.clone(), &["id"], Format::Parquet));
    read_files(folder.path(), "*.parquet", spec(declared, &["id"], Format::Parquet), |decoded| model.apply(decoded));
    assert!(model.ids().is_empty() && model.counters.errors == 2);
    assert!(model.reasons()[0].contains("no column must"), "{:?}", model.reasons());
    std::fs::write(folder.path().join("b.parquet"), b"PAR1 no parquet").unwrap();
    let options = FilesOptions { watch: false, ..FilesOptions::new(folder.path(), "b.parquet") };
    let mut reader =
        open(options, Arc::new(spec(schema([("id", BIGINT)]), &[], Format::Parquet)), &Positions::default()).unwrap();
    assert!(reader.next(Budget::default()).unwrap_err().to_string().contains("b.parquet cannot be read as Parquet"));
}

fn parquet_writer(file: std::fs::File, batch: &RecordBatch) -> ::parquet::arrow::ArrowWriter<std::fs::File> {
    ::parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap()
}

#[test]
fn real_orders_end_where_they_should() {
    let declared = schema([("id!", BIGINT), ("quantity!", INT), ("price!", MONEY), ("order_date!", STAMP)]);
    let Some(data) = real_data() else { return };
    let mut spec = spec(declared, &["id"], Format::DebeziumJson);
    spec.decimal_handling = DecimalHandling::Double;
    let mut model = Model::new(&spec);
    read_files(data.join("debezium/arroyo_postgres_orders"), "*.json", spec, |decoded| model.apply(decoded));
    assert!(model.errors.is_empty(), "{:?}", model.reasons());
    let cents = |text: &str| number::decimal(text.as_bytes(), 38, 2).unwrap();
    let total: i128 = model.rows().iter().map(|(row, _)| cents(&row[2]) * row[1].parse::<i128>().unwrap()).sum();
    assert_eq!((model.ids().len(), total), (559, 170_057_622));
}

#[test]
fn real_month_files_add_up() {
    let Some(data) = real_data() else { return };
    let green = schema([
        ("VendorID", BIGINT),
        ("lpep_pickup_datetime", STAMP),
        ("passenger_count", BIGINT),
        ("RatecodeID", INT),
        ("ehail_fee", MONEY),
        ("total_amount", MONEY),
    ]);
    for (month, rows, cents) in [
        ("2021-01", 76_518, 180_389_805),
        ("2021-02", 64_572, 151_348_817),
        ("2021-03", 83_827, 198_846_774),
        ("2022-01", 62_495, 109_307_080),
        ("2022-02", 69_399, 123_453_715),
        ("2022-03", 78_537, 143_561_858),
        ("2023-01", 68_211, 148_627_522),
        ("2023-02", 64_809, 141_831_750),
    ] {
        let (count, total, _) =
            total_of(&data, &format!("trips_green/*{month}.parquet"), spec(green.clone(), &[], Format::Parquet));
        assert_eq!((count, total), (rows, cents), "{month}");
    }
    let yellow =
        schema([("pickup_datetime", STAMP), ("passenger_count", INT), ("congestion_surcharge", MONEY), ("total_amount", MONEY)]);
    let (count, _, errors) = total_of(&data, "trips_yellow/*.csv", spec(yellow, &[], Format::Csv));
    assert_eq!((count, errors), (240_000, 0));
    let weather = schema([("full_time!", stamp_utc()), ("temperature_2m (°C)", DataType::Float64), ("rain (mm)", MONEY)]);
    let spec = DecodeSpec { null_markers: vec!["NaN".into()], ..spec(weather, &["full_time"], Format::Csv) };
    let mut model = Model::new(&spec);
    read_files(&data, "weather/NYC*.csv", spec, |decoded| model.apply(decoded));
    assert_eq!((model.rows().len(), model.errors.len()), (59_760, 0));
    assert_eq!(model.rows().iter().filter(|(row, _)| row[1] == "∅").count(), 168, "the last week is not measured yet");
}

/// Rows, the sum of the last column in hundredths, and errors.
fn total_of(data: &std::path::Path, path: &str, spec: DecodeSpec) -> (u64, i128, u64) {
    let (mut counters, mut total) = (Counters::default(), 0);
    read_files(data, path, spec, |decoded| {
        counters += decoded.counters;
        for input in decoded.inputs {
            let InputBatch::Rows { rows, .. } = input else { panic!() };
            let last = rows.column(rows.num_columns() - 1).as_primitive::<Decimal128Type>();
            total += sum(last).unwrap_or(0);
        }
    });
    (counters.rows, total, counters.errors)
}

/// A row of every kind of column.
#[derive(Clone, Debug)]
struct Row {
    id: i64,
    name: Option<String>,
    cents: Option<i64>,
    weight: Option<f64>,
    ok: Option<bool>,
    micros: Option<i64>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let name = prop_oneof!["[ -~]{0,12}", "\\PC{0,6}", Just("a\"b,c\nd\\e\té".to_owned())];
    let cents = -9_999_999_999_i64..10_000_000_000;
    let micros = -62_135_596_800_000_000_i64..253_402_300_800_000_000;
    let row = (
        any::<i64>(),
        proptest::option::of(name),
        proptest::option::of(cents),
        proptest::option::of(any::<f64>().prop_filter("finite", |float| float.is_finite())),
        any::<Option<bool>>(),
        proptest::option::of(micros),
    );
    let row = row.prop_map(|(id, name, cents, weight, ok, micros)| Row { id, name, cents, weight, ok, micros });
    proptest::collection::vec(row, 0..40)
}

fn all_kinds() -> SchemaRef {
    schema([
        ("id!", BIGINT),
        ("name", TEXT),
        ("price", MONEY),
        ("weight", DataType::Float64),
        ("ok", DataType::Boolean),
        ("at", STAMP),
    ])
}

impl Row {
    fn price(&self) -> Option<String> {
        let decimals = Decimal128Array::from(vec![self.cents.map(i128::from)]).with_precision_and_scale(10, 2).unwrap();
        decimals.is_valid(0).then(|| decimals.value_as_string(0))
    }

    fn stamp(&self, pattern: &str) -> Option<String> {
        self.micros.map(|micros| chrono::DateTime::from_timestamp_micros(micros).unwrap().format(pattern).to_string())
    }

    fn json(&self, at: &str) -> String {
        let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".into());
        let name = or_null(self.name.as_ref().map(|name| serde_json::to_string(name).unwrap()));
        let (price, weight) = (or_null(self.price()), or_null(self.weight.map(|weight| format!("{weight:e}"))));
        let ok = or_null(self.ok.map(|ok| ok.to_string()));
        format!(r#"{{"id":{},"name":{name},"price":{price},"weight":{weight},"ok":{ok},"at":{at}}}"#, self.id)
    }

    /// As the model shows it.
    fn cells(&self) -> Vec<String> {
        let or_null = |text: Option<String>| text.unwrap_or_else(|| "∅".into());
        let weight = Float64Array::from(vec![self.weight]);
        let stamp = TimestampMicrosecondArray::from(vec![self.micros]);
        let shown = |array: &dyn Array| arrow::util::display::array_value_to_string(array, 0).unwrap();
        vec![
            self.id.to_string(),
            or_null(self.name.clone()),
            or_null(self.price()),
            or_null(self.weight.map(|_| shown(&weight))),
            or_null(self.ok.map(|ok| ok.to_string())),
            or_null(self.micros.map(|_| shown(&stamp))),
        ]
    }
}

/// The rows as the model should hold them.
fn wanted(rows: &[Row]) -> Vec<(Vec<String>, i64)> {
    let mut bag = std::collections::BTreeMap::new();
    for row in rows {
        *bag.entry(row.cells()).or_insert(0) += 1;
    }
    bag.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn json_lines_give_back_what_was_written(rows in rows(), chunk in 1_usize..300) {
        let spec = DecodeSpec { envelope: EnvelopeMode::Append, ..spec(all_kinds(), &[], Format::Json) };
        let mut text = String::new();
        for row in &rows {
            let at = row.stamp("\"%Y-%m-%dT%H:%M:%S%.6f\"").unwrap_or_else(|| "null".into());
            writeln!(text, "{}", row.json(&at)).unwrap();
        }
        let model = decode_text(&spec, text.as_bytes(), chunk);
        prop_assert_eq!(model.reasons(), Vec::<String>::new());
        prop_assert_eq!(model.rows(), wanted(&rows));
    }

    #[test]
    fn change_messages_give_back_what_was_written(rows in rows(), chunk in 1_usize..300) {
        let mut spec = spec(all_kinds(), &["id"], Format::DebeziumJson);
        spec.decimal_handling = DecimalHandling::Double;
        let (mut text, mut table) = (String::new(), std::collections::BTreeMap::new());
        for (number, row) in rows.iter().enumerate() {
            let at = row.micros.map_or_else(|| "null".into(), |micros| micros.to_string());
            let json = row.json(&at);
            // Every third message takes the row away again.
            let (before, after, op) = if number % 3 == 2 { (json.as_str(), "null", "d") } else { ("null", json.as_str(), "c") };
            writeln!(text, r#"{{"before":{before},"after":{after},"source":{{"lsn":{number},"sequence":"[\"1\",\"2\"]"}},"op":"{op}"}}"#).unwrap();
            if op == "d" { table.remove(&row.id.to_string()) } else { table.insert(row.id.to_string(), row.cells()) };
        }
        let model = decode_text(&spec, text.as_bytes(), chunk);
        prop_assert_eq!(model.reasons(), Vec::<String>::new());
        prop_assert_eq!(model.rows(), table.into_values().map(|cells| (cells, 1)).collect::<Vec<_>>());
    }

    #[test]
    fn csv_gives_back_what_was_written(rows in rows(), chunk in 1_usize..300) {
        let spec = DecodeSpec { envelope: EnvelopeMode::Append, ..spec(all_kinds(), &[], Format::Csv) };
        let mut text = "at,id,name,price,weight,ok\n".to_owned();
        for (number, row) in rows.iter().enumerate() {
            let name = row.name.as_ref().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).unwrap_or_default();
            let (at, price) = (row.stamp("%Y-%m-%d %H:%M:%S%.6f").unwrap_or_default(), row.price().unwrap_or_default());
            let weight = row.weight.map(|weight| weight.to_string()).unwrap_or_default();
            let ok = row.ok.map(|ok| ok.to_string()).unwrap_or_default();
            let end = if number % 2 == 0 { "\n" } else { "\r\n" };
            write!(text, "{at},{},{name},{price},{weight},{ok}{end}", row.id).unwrap();
        }
        let model = decode_text(&spec, text.as_bytes(), chunk);
        prop_assert_eq!(model.reasons(), Vec::<String>::new());
        prop_assert_eq!(model.rows(), wanted(&rows));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400, noise in any::<u8>()) {
        let message = br#"{"before":null,"after":{"id":1,"name":"n","price":1.5,"weight":2e3,"ok":true,"at":5},"op":"c"}"#;
        let mut broken = message.to_vec();
        let at = cut % broken.len();
        broken[at] = noise;
        for format in [Format::DebeziumJson, Format::Json, Format::Csv] {
            for text in [&bytes[..], &broken[..]] {
                let mut spec = spec(all_kinds(), &[], format);
                spec.header = false;
                let model = decode_text(&spec, text, 50);
                prop_assert_eq!(model.counters.errors as usize, model.errors.len());
            }
        }
    }
}
