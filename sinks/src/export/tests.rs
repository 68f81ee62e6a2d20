//! Every format read back, and failures that leave nothing behind.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::*;

fn rows() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name, long", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("x", DataType::Float64, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec![Some("a,\"b\""), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_740_960_300_000_000), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), None])),
        ],
    )
    .unwrap()
}

fn written(format: ExportFormat) -> Vec<u8> {
    let batch = rows();
    let mut export = Export::new(Vec::new(), format, &batch.schema()).unwrap();
    export.write(&batch).unwrap();
    let (out, count) = export.finish().unwrap();
    assert_eq!(count, 2);
    out
}

#[test]
fn csv_is_what_postgresql_would_write() {
    let text = String::from_utf8(written(ExportFormat::Csv)).unwrap();
    assert_eq!(text, "id,\"name, long\",at,x\n1,\"a,\"\"b\"\"\",2025-03-03 00:05:00,0.5\n2,,,\n");
}

#[test]
fn json_and_ndjson_are_the_same_objects() {
    let array: serde_json::Value = serde_json::from_slice(&written(ExportFormat::Json)).unwrap();
    let lines = String::from_utf8(written(ExportFormat::Ndjson)).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(array, serde_json::Value::Array(lines));
    assert_eq!(array[1]["name, long"], serde_json::Value::Null);
}

#[test]
fn arrow_and_parquet_read_back() {
    let arrow = arrow::ipc::reader::FileReader::try_new(std::io::Cursor::new(written(ExportFormat::Arrow)), None).unwrap();
    assert_eq!(arrow.map(Result::unwrap).collect::<Vec<_>>(), vec![rows()]);
    let parquet = ParquetRecordBatchReader::try_new(bytes::Bytes::from(written(ExportFormat::Parquet)), 10).unwrap();
    assert_eq!(parquet.map(Result::unwrap).collect::<Vec<_>>(), vec![rows()]);
}

#[test]
fn a_table_shows_header_and_rows_also_without_rows() {
    let text = String::from_utf8(written(ExportFormat::Table)).unwrap();
    assert!(text.contains("| id |") && text.contains("2025-03-03 00:05:00"), "{text}");
    let export = Export::new(Vec::new(), ExportFormat::Table, &rows().schema()).unwrap();
    let (out, _) = export.finish().unwrap();
    assert!(String::from_utf8(out).unwrap().contains("| id |"));
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let mut file = ExportFile::create(&path, ExportFormat::of(&path).unwrap(), &rows().schema()).unwrap();
    file.write(&rows()).unwrap();
    assert!(!path.exists());
    drop(file);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut file = ExportFile::create(&path, ExportFormat::Csv, &rows().schema()).unwrap();
    file.write(&rows()).unwrap();
    assert_eq!(file.finish().unwrap(), 2);
    assert_eq!(std::fs::read(&path).unwrap(), written(ExportFormat::Csv));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn errors_are_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| ExportFile::create(path, ExportFormat::Csv, &rows().schema()).unwrap_err().to_string();
    assert!(said(folder.path()).contains("is a folder"));
    assert!(said(&folder.path().join("no/out.csv")).contains("does not exist"));
    assert!("xml".parse::<ExportFormat>().unwrap_err().to_string().contains("ndjson"));
}
