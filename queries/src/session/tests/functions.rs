//! PostgreSQL's aggregates and JSON, as a session answers them.

use super::*;

/// The values of an answer's only row.
async fn row(sql: &str) -> Vec<String> {
    let text = answer(sql).await;
    let line = text.lines().nth(3).unwrap_or_else(|| panic!("{sql}: no row\n{text}"));
    line.trim_matches('|').split('|').map(|value| value.trim().to_owned()).collect()
}

async fn value(sql: &str) -> String {
    row(&format!("SELECT {sql} AS x")).await.remove(0)
}

#[tokio::test]
async fn ordered_sets() {
    let found = row(
        "SELECT mode() WITHIN GROUP (ORDER BY zone) AS m, percentile_disc(0.5) WITHIN GROUP (ORDER BY fare DESC) AS d,
           percentile_disc(ARRAY[0, 0.5, 1]) WITHIN GROUP (ORDER BY id) AS list, percentile_cont(0.5) WITHIN GROUP (ORDER BY fare) AS c,
           percentile_cont(0.1) WITHIN GROUP (ORDER BY id) AS i, every(zone > 6) AS e, any_value(flag) AS a, any_value(zone) AS b,
           round(variance(distance), 3) AS v FROM trips",
    )
    .await;
    assert_eq!(found, ["7", "2.50", "[1, 2, 4]", "1.75", "1.3", "true", "", "7", "1.563"]);
    let nothing = row("SELECT mode() WITHIN GROUP (ORDER BY id) AS m, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS d FROM trips WHERE id > 9").await;
    assert_eq!(nothing, ["", ""]);
    let intervals = value("percentile_cont(0.5) WITHIN GROUP (ORDER BY CASE WHEN id = 1 THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END) FILTER (WHERE id < 3) AS x FROM trips --").await;
    assert_eq!(intervals, "1 days 12 hours");
}

#[tokio::test]
async fn wrong_fractions_are_refused() {
    let (catalog, memory) = lake();
    let context = context(&catalog, memory, 1);
    for (sql, words) in [
        ("SELECT percentile_disc(1.5) WITHIN GROUP (ORDER BY id) FROM trips", "percentile value 1.5 is not between 0 and 1"),
        ("SELECT mode() FROM trips", "mode() WITHIN GROUP (ORDER BY"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY _file) FROM trips", "percentile_cont takes numbers and intervals"),
    ] {
        let statement = parse_statement(sql).unwrap();
        let StatementKind::Query(select) = &statement.kind else { panic!("not a query") };
        let error = match query(&context, &catalog, &select.query, &statement.position).await {
            Ok(frame) => frame.collect().await.expect_err(sql).to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn json_is_made() {
    let found = row("SELECT json_agg(zone ORDER BY id DESC) AS a, jsonb_agg(DISTINCT zone) FILTER (WHERE zone = 7) AS d, json_object_agg(id, fare ORDER BY id) AS o,
           jsonb_object_agg(zone, distance ORDER BY id) AS b FROM trips WHERE id < 4")
    .await;
    assert_eq!(found, ["[8, 7, 7]", "[7]", r#"{"1" : 1.00, "2" : 2.50, "3" : 3.00}"#, r#"{"7": 2.5, "8": 3.0}"#]);
    let nested = value(
        "json_agg(json_build_object('id', id, 'at', at, 'file', _file, 'more', json_build_array(1, NULL, 'x\"y')) ORDER BY id) FROM trips WHERE id = 2 --",
    )
    .await;
    assert_eq!(nested, r#"[{"id" : 2, "at" : "1970-01-01T00:10:00", "file" : "a", "more" : [1, null, "x\"y"]}]"#);
    assert_eq!(value("to_json(CAST('NaN' AS DOUBLE PRECISION))").await, "\"NaN\"");
    assert_eq!(value("json_agg(to_json('[1]'::json))").await, "[\"[1]\"]");
    assert_eq!(value("json_agg('[1]'::json)").await, "[[1]]");
    assert_eq!(value("coalesce(json_agg(id), '[]') FROM trips WHERE id > 9 --").await, "[]");
}

#[tokio::test]
async fn json_is_looked_into() {
    let json = r#"'{"a": {"b": [1, "two", null, {"c": true}]}, "n": 5, "s": "t"}'::jsonb"#;
    for (path, expected) in [
        ("-> 'n'", "5"),
        ("->> 's'", "t"),
        ("-> 's'", "\"t\""),
        ("-> 'a' -> 'b' ->> 1", "two"),
        ("-> 'a' -> 'b' ->> 2", ""),
        ("-> 'a' -> 'b' -> 2", "null"),
        ("-> 'a' -> 'b' -> -1 ->> 'c'", "true"),
        ("#> '{a,b,0}'", "1"),
        ("#>> ARRAY['a', 'b', '3', 'c']", "true"),
        ("-> 'missing'", ""),
        ("? 'n'", "true"),
        ("?| ARRAY['x', 's']", "true"),
        ("?& '{x,s}'", "false"),
    ] {
        assert_eq!(value(&format!("{json} {path}")).await, expected, "{path}");
    }
    assert_eq!(value(&format!("({json} ->> 'n')::int + 1")).await, "6");
    assert_eq!(value(&format!("json_extract_path_text({json}, 'a', 'b', '1')")).await, "two");
    assert_eq!(value(&format!("json_array_length({json} -> 'a' -> 'b')")).await, "4");
    assert_eq!(value(&format!("jsonb_typeof({json} -> 'a')")).await, "object");
    assert_eq!(value("json_typeof('nonsense')").await, "");
}

#[tokio::test]
async fn json_becomes_rows() {
    let elements =
        answer("SELECT t.id, e.value FROM t, json_array_elements_text('[\"x\", 2, null]'::json) e ORDER BY 1, 2").await;
    let selected = answer("SELECT id, jsonb_array_elements(json_build_array(id, 'n')) AS e FROM t ORDER BY 1, 2").await;
    let pairs =
        answer("SELECT t.id, key, value FROM t, LATERAL json_each(json_build_object('b', n, 'a', name)) ORDER BY 1, 2").await;
    let keys = answer("SELECT json_object_keys('{\"z\": 1, \"y\": 2}') AS k").await;
    insta::assert_snapshot!([elements, selected, pairs, keys].join("\n"));
}
