use std::fs;
use std::io::Write;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use livelake_dataflow::protocol::InputBatch;

use super::*;

fn columns(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

fn spec(format: Format) -> Arc<DecodeSpec> {
    let fields = [("id", DataType::Int64), ("name", DataType::Utf8), ("_row_number", DataType::Int64), ("_file", DataType::Utf8)];
    let mut spec = DecodeSpec::new("public.things", columns(&fields[..2]), Vec::new(), format);
    spec.schema = columns(&fields);
    spec.envelope = EnvelopeMode::Append;
    Arc::new(spec)
}

fn once(folder: &Path, path: &str) -> FilesOptions {
    FilesOptions { watch: false, threads: 2, ..FilesOptions::new(folder, path) }
}

/// Rows as (id, row number, file), reasons of errors, notices.
type Outcome = (Vec<(i64, i64, String)>, Vec<String>, Vec<String>);

/// Reads to the end (or until there is nothing now).
fn read(reader: &mut dyn SourceReader, positions: &mut Positions, bytes: usize) -> Outcome {
    let (mut rows, mut errors, mut notices) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match reader.next(Budget { bytes, ..Budget::default() }).unwrap() {
            SourceEvent::Batch { partition, decoded, position, .. } => {
                positions.set(partition, position);
                for input in decoded.inputs {
                    let InputBatch::Rows { rows: batch, .. } = input else { panic!("no truncation expected") };
                    let (ids, numbers) =
                        (batch.column(0).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
                    let files = batch.column(3).as_string::<i32>();
                    rows.extend(
                        (0..batch.num_rows()).map(|row| (ids.value(row), numbers.value(row), files.value(row).to_owned())),
                    );
                }
                if let Some(batch) = decoded.errors {
                    let (places, reasons) = (batch.column(1).as_string::<i32>(), batch.column(3).as_string::<i32>());
                    errors.extend((0..batch.num_rows()).map(|row| format!("{} {}", places.value(row), reasons.value(row))));
                }
            }
            SourceEvent::Notice(notice) => notices.push(notice),
            SourceEvent::Done | SourceEvent::Idle { .. } | SourceEvent::Waiting { .. } => return (rows, errors, notices),
        }
    }
}

fn read_all(options: FilesOptions, spec: &Arc<DecodeSpec>, positions: &mut Positions) -> Outcome {
    let mut reader = open(options, Arc::clone(spec), positions).unwrap();
    read(reader.as_mut(), positions, 64 << 10)
}

fn json_lines(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"name\":\"thing number {id}\"}}\n")).collect()
}

#[test]
fn ranges_of_json_lines_come_in_order_with_their_line_numbers() {
    let folder = tempfile::tempdir().unwrap();
    // Far more than one range: a range is 64 KiB here.
    let mut text = json_lines(0..20_000);
    text.push_str("{\"id\":broken}\n");
    fs::write(folder.path().join("a.ndjson"), &text).unwrap();
    fs::write(folder.path().join("b.ndjson"), json_lines(20_000..30_000).trim_end()).unwrap();
    let mut positions = Positions::default();
    let (rows, errors, _) = read_all(once(folder.path(), "*.ndjson"), &spec(Format::Json), &mut positions);
    assert_eq!(rows.len(), 30_000);
    assert!(rows.iter().enumerate().all(|(at, row)| row.0 == i64::try_from(at).unwrap()));
    assert!(rows[..20_000].iter().all(|(id, number, file)| *number == id + 1 && file == "a.ndjson"));
    assert!(rows[20_000..].iter().all(|(id, number, file)| *number == id - 19_999 && file == "b.ndjson"));
    assert!(errors[0].starts_with("a.ndjson:20001 malformed JSON"), "{errors:?}");
    let (again, ..) = read_all(once(folder.path(), "*.ndjson"), &spec(Format::Json), &mut positions);
    assert!(again.is_empty(), "files that were read are not read again");
    let kept = serde_json::to_string(&positions).unwrap();
    assert_eq!(serde_json::from_str::<Positions>(&kept).unwrap(), positions);
}

#[test]
fn a_file_that_has_grown_is_read_on_and_a_new_one_is_found() {
    for (format, suffix, header) in [(Format::Json, "ndjson", ""), (Format::Csv, "csv", "id,name\n")] {
        let line = |id: i64| if format == Format::Csv { format!("{id},x\n") } else { json_lines(id..id + 1) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("a.{suffix}"));
        fs::write(&path, format!("{header}{}{}", line(1), line(2))).unwrap();
        let mut positions = Positions::default();
        assert_eq!(read_all(once(folder.path(), "*"), &spec(format), &mut positions).0.len(), 2);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(line(3).as_bytes()).unwrap();
        fs::write(folder.path().join(format!("b.{suffix}")), format!("{header}{}", line(4))).unwrap();
        let (rows, errors, notices) = read_all(once(folder.path(), "*"), &spec(format), &mut positions);
        let first_new = if format == Format::Csv { 4 } else { 3 };
        assert_eq!(rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(3, first_new), (4, first_new - 2)], "{format:?}");
        assert!(errors.is_empty() && notices.is_empty());
    }
}

#[test]
fn a_line_that_is_still_being_written_waits_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    fs::write(&path, "{\"id\":1}\n{\"id\":").unwrap();
    let options = FilesOptions { poll: Duration::ZERO, ..FilesOptions::new(folder.path(), "a.ndjson") };
    let mut positions = Positions::default();
    let mut reader = open(options, spec(Format::Json), &positions).unwrap();
    let (rows, errors, _) = read(reader.as_mut(), &mut positions, 1 << 20);
    assert_eq!((rows.len(), errors.len()), (1, 0));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"2}\n").unwrap();
    let (rows, errors, _) = read(reader.as_mut(), &mut positions, 1 << 20);
    assert_eq!(rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(2, 2)]);
    assert!(errors.is_empty());
}

#[test]
fn a_replaced_or_cut_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    for (content, word) in [(json_lines(5..9), "replaced"), (json_lines(0..1), "cut")] {
        fs::write(&path, json_lines(0..3)).unwrap();
        let mut positions = Positions::default();
        read_all(once(folder.path(), "a.ndjson"), &spec(Format::Json), &mut positions);
        fs::write(&path, &content).unwrap();
        let (rows, _, notices) = read_all(once(folder.path(), "a.ndjson"), &spec(Format::Json), &mut positions.clone());
        assert!(rows.is_empty());
        assert!(notices.len() == 1 && notices[0].contains(word), "{notices:?}");
        let mut upsert = spec(Format::Json).as_ref().clone();
        (upsert.envelope, upsert.key) = (EnvelopeMode::Upsert, vec!["id".into()]);
        let (rows, _, notices) = read_all(once(folder.path(), "a.ndjson"), &Arc::new(upsert), &mut positions);
        assert_eq!(rows.len(), content.lines().count(), "under upsert it is read again");
        assert_eq!(notices.len(), 1);
    }
}

#[test]
fn a_missing_file_is_waited_for_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = open(FilesOptions::new(folder.path(), "no/*.csv"), spec(Format::Csv), &Positions::default()).unwrap();
    assert!(matches!(reader.next(Budget::default()), Ok(SourceEvent::Waiting { message, .. }) if message.contains("no/*.csv")));
    let mut reader = open(once(folder.path(), "no.csv"), spec(Format::Csv), &Positions::default()).unwrap();
    match reader.next(Budget::default()) {
        Err(error @ SourceError::NoFiles(_)) => assert!(error.is_retryable()),
        other => panic!("{other:?}"),
    }
    assert!(open(once(folder.path(), "a***"), spec(Format::Csv), &Positions::default()).is_err());
}

#[test]
fn packed_text_is_read_to_its_end_and_not_again() {
    let folder = tempfile::tempdir().unwrap();
    let text = json_lines(0..5000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    fs::write(folder.path().join("a.ndjson.gz"), gzip.finish().unwrap()).unwrap();
    fs::write(folder.path().join("b.ndjson.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let mut positions = Positions::default();
    let (rows, errors, _) = read_all(once(folder.path(), "*"), &spec(Format::Json), &mut positions);
    assert_eq!((rows.len(), errors.len()), (10_000, 0));
    assert_eq!(rows[9_999], (4999, 5000, "b.ndjson.zst".to_owned()));
    assert!(read_all(once(folder.path(), "*"), &spec(Format::Json), &mut positions).0.is_empty());
    // Half a file read before a restart: the rest follows, with the right numbers.
    let Some(Position::File { bytes, rows, done, .. }) = positions.0.get_mut("a.ndjson.gz") else { panic!() };
    (*bytes, *rows, *done) = (0, 4000, false);
    let (rows, ..) = read_all(once(folder.path(), "*"), &spec(Format::Json), &mut positions);
    assert_eq!((rows.len(), rows[0].0, rows[0].1), (1000, 4000, 4001));
    fs::write(folder.path().join("c.ndjson.gz"), b"\x1f\x8b\x08 no gzip").unwrap();
    let mut reader = open(once(folder.path(), "c*"), spec(Format::Json), &Positions::default()).unwrap();
    assert!(matches!(reader.next(Budget::default()), Err(SourceError::Malformed { .. })));
}

#[test]
fn an_empty_file_is_done_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.ndjson", "a.csv", "a.ndjson.zst"] {
        fs::write(
            folder.path().join(name),
            if name.ends_with("zst") { zstd::encode_all(&b""[..], 1).unwrap() } else { Vec::new() },
        )
        .unwrap();
        let format = format_by_suffix(name).unwrap();
        let (rows, errors, _) = read_all(once(folder.path(), name), &spec(format), &mut Positions::default());
        assert_eq!((rows.len(), errors.len()), (0, 0), "{name}");
    }
}

#[test]
fn a_transaction_is_never_split() {
    let folder = tempfile::tempdir().unwrap();
    // Transactions of one to three hundred messages, so that many of them lie across the place where a range would end.
    let (mut text, mut ends, mut id) = (String::new(), Vec::new(), 0);
    for transaction in 0..200 {
        for _ in 0..1 + transaction * 37 % 300 {
            let row = format!(r#"{{"id":{id},"name":"not a \"txId\":7 of ours"}}"#);
            text += &format!(r#"{{"before":null,"after":{row},"source":{{"txId":{transaction},"lsn":{id}}},"op":"c"}}"#);
            text.push('\n');
            id += 1;
        }
        ends.push(id);
    }
    fs::write(folder.path().join("a.ndjson"), &text).unwrap();
    let mut reader = open(once(folder.path(), "a.ndjson"), spec(Format::DebeziumJson), &Positions::default()).unwrap();
    let (mut rows, mut batches) = (0, 0);
    while let SourceEvent::Batch { decoded, .. } = reader.next(Budget { bytes: 64 << 10, ..Budget::default() }).unwrap() {
        rows += decoded.counters.rows;
        batches += 1;
        assert!(ends.contains(&rows), "{rows}");
    }
    assert_eq!(Some(&rows), ends.last());
    assert!(batches > 10);
}
