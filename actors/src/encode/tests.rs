//! What every type looks like in every format.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use arrow::ipc::reader::StreamReader;

use super::text::{Style, TextColumn};
use super::*;

fn sample() -> RecordBatch {
    let zoned = TimestampMicrosecondArray::from(vec![Some(1_609_459_200_123_000), None]).with_timezone("UTC");
    let local = TimestampNanosecondArray::from(vec![Some(-1), Some(0)]);
    let mut list = ListBuilder::new(StringBuilder::new());
    list.values().append_value("a,b");
    list.values().append_null();
    list.values().append_value("");
    list.append(true);
    list.append(false);
    let point = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Float64, true)),
        Arc::new(Float64Array::from(vec![f64::NAN, 1.5])) as ArrayRef,
    )]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])) as ArrayRef, true),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![99_999_999_999_999_999_999_999_999_999_999_999_999, -5])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
            true,
        ),
        ("ratio", Arc::new(Float64Array::from(vec![f64::INFINITY, 0.1])), true),
        ("at", Arc::new(zoned), true),
        ("local", Arc::new(local), true),
        ("day", Arc::new(Date32Array::from(vec![-719_529, 18_628])), true),
        ("raw", Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice(), b""])), true),
        ("name \"q\"", Arc::new(StringArray::from(vec!["line\nbreak, \"q\"", ""])), true),
        ("tags", Arc::new(list.finish()), true),
        ("point", Arc::new(point), true),
    ])
    .unwrap()
}

fn encode(format: RowFormat, batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = BatchEncoder::begin(format, &batches[0].schema(), &mut out).unwrap();
    for batch in batches {
        encoder.batch(batch, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    out
}

#[test]
fn json_keeps_every_digit() {
    let text = String::from_utf8(encode(RowFormat::Ndjson, &[sample()])).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        concat!(
            r#"{"id":-9223372036854775808,"price":999999999999999999999999999999999999.99,"ratio":"Infinity","at":"2021-01-01T00:00:00.123Z","#,
            r#""local":"1969-12-31T23:59:59.999999999","day":"-0001-12-31","raw":"00ff","name \"q\"":"line\nbreak, \"q\"","#,
            r#""tags":["a,b",null,""],"point":{"x":"NaN"}}"#
        )
    );
    assert_eq!(
        lines[1],
        concat!(
            r#"{"id":9223372036854775807,"price":-0.05,"ratio":0.1,"at":null,"local":"1970-01-01T00:00:00","day":"2021-01-01","raw":"","#,
            r#""name \"q\"":"","tags":null,"point":{"x":1.5}}"#
        )
    );
}

#[test]
fn json_rows_are_separated_across_batches() {
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let text = String::from_utf8(encode(RowFormat::Json, &[batch.slice(0, 0), batch.clone(), batch.slice(0, 0), batch])).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&format!("[{text}]")).unwrap();
    assert_eq!(rows, serde_json::json!([{"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}]));
}

#[test]
fn csv_tells_null_from_empty() {
    let text = String::from_utf8(encode(RowFormat::Csv, &[sample()])).unwrap();
    assert_eq!(
        text,
        concat!(
            "id,price,ratio,at,local,day,raw,\"name \"\"q\"\"\",tags,point\n",
            "-9223372036854775808,999999999999999999999999999999999999.99,Infinity,2021-01-01T00:00:00.123Z,",
            "1969-12-31T23:59:59.999999999,-0001-12-31,00ff,\"line\nbreak, \"\"q\"\"\",",
            "\"[\"\"a,b\"\",null,\"\"\"\"]\",\"{\"\"x\"\":\"\"NaN\"\"}\"\n",
            "9223372036854775807,-0.05,0.1,,1970-01-01T00:00:00,2021-01-01,\"\",\"\",,\"{\"\"x\"\":1.5}\"\n",
        )
    );
}

#[test]
fn arrow_reads_back_as_it_was() {
    let batch = sample();
    let bytes = encode(RowFormat::Arrow, &[batch.clone(), batch.slice(1, 1)]);
    let read: Vec<_> = StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
    // NaN is not equal to itself, so the text is compared.
    assert_eq!(format!("{read:?}"), format!("{:?}", vec![batch.clone(), batch.slice(1, 1)]));
}

fn postgres(array: ArrayRef) -> Vec<String> {
    let column = TextColumn::new(&array, Style::Postgres).unwrap();
    (0..array.len())
        .map(|row| {
            let mut out = Vec::new();
            column.write(row, &mut out);
            String::from_utf8(out).unwrap()
        })
        .collect()
}

#[test]
fn postgres_text_is_what_postgres_prints() {
    let floats = vec![1.0, -0.5, 1e14, 1e15, 1.25e-4, 1.25e-5, 123_456.789, f64::NAN, f64::NEG_INFINITY, -0.0, 1e300];
    assert_eq!(
        postgres(Arc::new(Float64Array::from(floats))),
        ["1", "-0.5", "100000000000000", "1e+15", "0.000125", "1.25e-05", "123456.789", "NaN", "-Infinity", "-0", "1e+300"]
    );
    assert_eq!(postgres(Arc::new(Float32Array::from(vec![0.1_f32, 1e6]))), ["0.1", "1e+06"]);
    assert_eq!(postgres(Arc::new(BooleanArray::from(vec![true, false]))), ["t", "f"]);
    assert_eq!(postgres(Arc::new(BinaryArray::from(vec![b"\x01\xab".as_slice()]))), ["\\x01ab"]);
    let batch = sample();
    assert_eq!(postgres(batch.column(3).slice(0, 1)), ["2021-01-01 00:00:00.123+00"]);
    assert_eq!(postgres(batch.column(8).slice(0, 1)), ["{\"a,b\",NULL,\"\"}"]);
}
