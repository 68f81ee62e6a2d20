//! Each kind of bad input: a row in `$errors` that says why, and everything else right.

use super::*;
use crate::decode::{DecodeError, ErrorPolicy};

fn orders() -> DecodeSpec {
    let declared = schema([("id!", BIGINT), ("name", TEXT), ("price", MONEY), ("at", STAMP)]);
    DecodeSpec { decimal_handling: DecimalHandling::Double, ..spec(declared, &["id"]) }
}

fn good(id: i64) -> String {
    format!(
        r#"{{"before":null,"after":{{"id":{id},"name":"n","price":14.2,"at":1710037800123456}},"source":{{"lsn":1}},"op":"c"}}"#
    )
}

fn decode(spec: &DecodeSpec, lines: &[&[u8]]) -> Result<Model, DecodeError> {
    let spec = Arc::new(spec.clone());
    let mut decoder = DebeziumDecoder::new(&spec).unwrap();
    let file: Arc<str> = "orders.ndjson".into();
    let bytes = lines.join(&b'\n');
    decoder.decode(Input::Lines { file: &file, first_line: 1, bytes: &bytes, header: None, last: true })?;
    let mut model = Model::new(&spec);
    model.apply(decoder.take());
    Ok(model)
}

/// The reason for which a line between two good ones is refused.
#[track_caller]
fn reason(spec: &DecodeSpec, line: &[u8]) -> String {
    let model = decode(spec, &[good(1).as_bytes(), line, good(2).as_bytes()]).unwrap();
    assert_eq!(model.ids(), [1, 2], "its neighbours stand");
    assert_eq!(model.row("1")[2], "14.20");
    assert_eq!(model.errors.len(), 1, "{:?}", model.reasons());
    assert_eq!(model.errors[0][0], "orders.ndjson:2");
    model.errors[0][2].clone()
}

fn after(fields: &str) -> Vec<u8> {
    format!(r#"{{"before":null,"after":{{{fields}}},"op":"c"}}"#).into_bytes()
}

#[test]
fn broken_json() {
    let spec = orders();
    let whole = good(9);
    // Cut anywhere, a message is refused.
    for end in 1..whole.len() - 1 {
        let reason = reason(&spec, &whole.as_bytes()[..end]);
        assert!(reason.contains("malformed JSON"), "{end}: {reason}");
    }
    for broken in [
        r#"{"before":null,"after":{"id":9,},"op":"c"}"#,
        r#"{"before":null,"after":{"id":9 "name":"x"},"op":"c"}"#,
        r#"{"before":null,"after":{"id":09},"op":"c"}"#,
        r#"{"before":null,"after":{"id":9},"op":"c"} trailing"#,
        r#"{"before":null,"after":{"id":9},"op":"c",}"#,
        r#"["not","an","object"]"#,
        "not json at all",
    ] {
        assert!(reason(&spec, broken.as_bytes()).contains("malformed JSON"), "{broken}");
    }
}

#[test]
fn text_that_is_not_utf_8() {
    let mut line = good(9).into_bytes();
    let at = line.windows(3).position(|three| three == b"\"n\"").unwrap() + 1;
    line[at] = 0xff;
    assert!(reason(&orders(), &line).contains("UTF-8"));
}

#[test]
fn values_of_the_wrong_kind() {
    let spec = orders();
    for (fields, expected) in [
        (r#""id":"abc","price":1"#, "column id: \"abc\" is not an integer"),
        (r#""id":9223372036854775808"#, "column id: \"9223372036854775808\" is out of range"),
        (r#""id":1.5"#, "column id: \"1.5\" is not a whole number"),
        (r#""id":null"#, "column id is NULL, which it must not be"),
        (r#""name":"x""#, "column id is missing or NULL, which it must not be"),
        (r#""id":9,"price":"NaN""#, "column price: \"NaN\" is not a number"),
        (r#""id":9,"price":true"#, "column price: \"true\" is not a value of its type"),
        (r#""id":9,"price":123456789.5"#, "column price: \"123456789.5\" is out of range"),
        (r#""id":9,"at":"soon""#, "column at: \"soon\" is not a timestamp"),
        (r#""id":9,"at":{}"#, "column at: \"{}\" is not a value of its type"),
    ] {
        assert_eq!(reason(&spec, &after(fields)), expected);
    }
}

#[test]
fn messages_that_say_nothing() {
    let spec = orders();
    for (line, expected) in [
        (r#"{"before":null,"after":null,"op":"c"}"#, "neither `before` nor `after`"),
        (r#"{"op":"u"}"#, "neither `before` nor `after`"),
        (r#"{"hello":"world"}"#, "neither `before` nor `after`"),
        (r#"{"before":null,"after":null,"op":"d"}"#, "neither `before` nor a message key"),
        (r#"{"before":{"name":"x"},"after":null,"op":"d"}"#, "does not say column id"),
        (r#"{"before":null,"after":{"id":9},"op":"x"}"#, "none of r, c, u, d, t, m"),
        (r#"{"before":null,"after":{"id":9}}"#, "no `op`"),
        (r#"{"before":null,"after":7,"op":"c"}"#, "neither an object nor null"),
    ] {
        let reason = reason(&spec, line.as_bytes());
        assert!(reason.contains(expected), "{line}: {reason}");
    }
}

#[test]
fn a_before_that_is_not_the_old_row_changes_nothing() {
    let line = br#"{"before":{"id":1,"name":"never was"},"after":{"id":1,"name":"new"},"op":"u"}"#;
    let model = decode(&orders(), &[good(1).as_bytes(), line]).unwrap();
    assert_eq!((model.row("1")[1].as_str(), model.ids()), ("new", vec![1]));
    assert!(model.errors.is_empty());
}

#[test]
fn an_update_that_changes_the_key_moves_the_row() {
    let line = br#"{"before":{"id":1,"name":"n"},"after":{"id":7,"name":"n"},"op":"u"}"#;
    let model = decode(&orders(), &[good(1).as_bytes(), line]).unwrap();
    assert_eq!(model.ids(), [7]);
}

#[test]
fn a_truncation_keeps_its_place() {
    let truncate = br#"{"before":null,"after":null,"op":"t"}"#;
    let model = decode(&orders(), &[good(1).as_bytes(), truncate, good(2).as_bytes()]).unwrap();
    assert_eq!(model.ids(), [2]);
}

#[test]
fn a_field_of_ten_megabytes() {
    let spec = orders();
    let large = "x".repeat(10 << 20);
    let fields = format!(r#""id":9,"name":"{large}""#);
    let model = decode(&spec, &[good(1).as_bytes(), &after(&fields), good(2).as_bytes()]).unwrap();
    assert_eq!(model.row("9")[1].len(), 10 << 20);
    // In an error row it is cut, with a note.
    let fields = format!(r#""name":"{large}","id":"x""#);
    let model = decode(&spec, &[&after(&fields)]).unwrap();
    let payload = &model.errors[0][1];
    assert!(payload.len() < 70 << 10 && payload.contains("cut off: 1048"), "{}", &payload[payload.len() - 60..]);
}

#[test]
fn columns_that_are_not_there() {
    let spec = orders();
    let model = decode(&spec, &[&after(r#""id":9,"unknown":{"a":[1]},"other":"y""#)]).unwrap();
    assert_eq!(model.row("9")[1..], ["∅", "∅", "∅"]);
    assert_eq!(model.counters.ignored_fields, 2);
    // NOT NULL is watched even where nobody reads the column.
    let mut pruned = orders();
    pruned.declared = schema([("id!", BIGINT), ("name!", TEXT), ("price", MONEY), ("at", STAMP)]);
    pruned.schema = schema([("id!", BIGINT), ("name", TEXT), ("price", MONEY)]).project(&[0, 2]).map(Arc::new).unwrap();
    let model = decode(&pruned, &[&after(r#""id":9,"name":null"#), &after(r#""id":8"#), &after(r#""id":7,"name":"x""#)]).unwrap();
    assert_eq!((model.ids(), model.errors.len()), (vec![7], 2));
}

#[test]
fn names_match_exactly_first_and_then_in_any_case() {
    let model = decode(&orders(), &[&after(r#""ID":9,"NAME":"loose","name":"exact","Price":1"#)]).unwrap();
    assert_eq!(model.row("9")[1..3], ["exact", "1.00"]);
    let model = decode(&orders(), &[&after(r#""id":9,"name":"exact","Name":"loose""#)]).unwrap();
    assert_eq!(model.row("9")[1], "exact");
    let model = decode(&orders(), &[&after(r#""id":9,"name":"first","name":"last""#)]).unwrap();
    assert_eq!(model.row("9")[1], "last");
}

#[test]
fn the_other_policies() {
    let mut spec = orders();
    let line = after(r#""id":9,"name":"n","price":"free""#);
    spec.errors = ErrorPolicy::Fail;
    let error = decode(&spec, &[good(1).as_bytes(), &line]).unwrap_err();
    assert_eq!(error.to_string(), "public.recorded at orders.ndjson:2: column price: \"free\" is not a number");
    spec.errors = ErrorPolicy::Null;
    let model = decode(&spec, &[&line, &after(r#""id":"nine""#)]).unwrap();
    assert_eq!((model.row("9")[2].as_str(), model.counters.nulled_fields), ("∅", 1));
    assert_eq!(model.errors.len(), 1, "a key cannot become NULL");
}

#[test]
fn white_space_and_escapes_are_json_too() {
    let line = " { \"before\" : null , \"after\" : { \"id\" : 9 , \"na\\u006de\" : \"a\\\"\\u00e9\\n\" , \"price\" : 1e1 } , \"op\" : \"c\" } \r";
    let model = decode(&orders(), &[line.as_bytes()]).unwrap();
    assert!(model.errors.is_empty(), "{:?}", model.reasons());
    assert_eq!(model.row("9")[1..3], ["a\"é\n", "10.00"]);
}

#[test]
fn a_local_stamp_becomes_an_instant_in_the_given_zone() {
    let declared = schema([("id!", BIGINT), ("at", stamp_utc())]);
    let spec = DecodeSpec { zone: "America/New_York".parse().unwrap(), ..spec(declared, &["id"]) };
    let model =
        decode(&spec, &[&after(r#""id":1,"at":1710037800123456"#), &after(r#""id":2,"at":"2024-03-10T07:30:00Z""#)]).unwrap();
    assert_eq!(model.row("1")[1], "2024-03-10T07:30:00.123456Z", "02:30 is left out on that morning");
    assert_eq!(model.row("2")[1], "2024-03-10T07:30:00Z");
}
