//! Errors are rows: what cannot be computed is in the view's `$errors` while its cause is there, and all other rows stay right.

use serde_json::{Value, json};

use crate::process::{LakeDir, Running};

const LAKE: &str = "
CREATE TABLE orders (id BIGINT PRIMARY KEY, item TEXT, amount BIGINT, parts BIGINT, code TEXT);
CREATE TABLE prices (id BIGINT PRIMARY KEY, item TEXT, price BIGINT);
CREATE TABLE settings (id BIGINT PRIMARY KEY, factor BIGINT);
CREATE MATERIALIZED VIEW divided AS SELECT id, amount / parts AS part FROM orders;
CREATE MATERIALIZED VIEW careful AS SELECT id FROM orders WHERE parts <> 0 AND amount / parts > 1;
CREATE MATERIALIZED VIEW shop.codes AS SELECT id, CAST(code AS BIGINT) AS number FROM orders;
CREATE MATERIALIZED VIEW tripled AS SELECT id, amount * 3 AS much FROM orders;
CREATE MATERIALIZED VIEW totals AS SELECT item, sum(amount) AS total FROM orders GROUP BY item;
CREATE MATERIALIZED VIEW priced AS
  SELECT id, (SELECT p.price FROM prices p WHERE p.item = orders.item) AS price FROM orders;
CREATE MATERIALIZED VIEW scaled AS SELECT id, amount * (SELECT factor FROM settings) AS much FROM orders;
CREATE MATERIALIZED VIEW chosen AS SELECT id FROM orders WHERE amount = (SELECT factor FROM settings);
CREATE MATERIALIZED VIEW failures AS SELECT reason, count(*) AS times FROM divided$errors GROUP BY reason;
";

/// The answers to a query: each row's values, in the order of their names.
fn rows(lake: &Running, sql: &str) -> Value {
    let rows = lake.rows(sql);
    let values = rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().values().cloned().collect::<Value>());
    values.collect()
}

fn reasons(lake: &Running, view: &str) -> Value {
    rows(lake, &format!("SELECT reason, count(*) AS times FROM {view}$errors GROUP BY reason ORDER BY reason"))
}

fn comes_and_goes(workers: usize) {
    let lake = LakeDir::new(&[("lake.sql", LAKE)]);
    let running = lake.start(&[&format!("engine.workers={workers}")]);
    let all = |view: &str| rows(&running, &format!("SELECT * FROM {view} ORDER BY 1"));
    running.rows("INSERT INTO settings VALUES (1, 10)");
    running.rows("INSERT INTO prices VALUES (1, 'tea', 5), (2, 'milk', 7)");
    running.rows(
        "INSERT INTO orders VALUES (1, 'tea', 10, 2, '7'), (2, 'milk', 8, 0, 'x'), (3, 'rye', 9223372036854775807, 1, '8'), (4, 'rye', 6, 0, NULL)",
    );
    assert_eq!(all("divided"), json!([[1, 5], [3, 9223372036854775807_i64]]));
    assert_eq!(reasons(&running, "divided"), json!([["Divide by zero error", 2]]));
    let row = rows(
        &running,
        "SELECT e.row FROM divided$errors e JOIN orders o ON e.row LIKE 'id = ' || o.id || ',%' WHERE o.item = 'milk'",
    );
    assert_eq!(row, json!([["id = 2, item = milk, amount = 8, parts = 0, code = x"]]));
    assert_eq!((all("careful"), all("careful$errors")), (json!([[1], [3]]), json!([])));
    assert_eq!(all("shop.codes"), json!([[1, 7], [3, 8], [4, null]]));
    assert_eq!(reasons(&running, "shop.codes"), json!([["Cannot cast string 'x' to value of Int64 type", 1]]));
    assert_eq!(all("tripled"), json!([[1, 30], [2, 24], [4, 18]]));
    assert_eq!(reasons(&running, "tripled")[0][1], 1);
    assert_eq!(all("totals"), json!([["milk", 8], ["tea", 10]]));
    assert_eq!(rows(&running, "SELECT row FROM totals$errors"), json!([["item = rye"]]));
    assert_eq!(all("priced"), json!([[1, 5], [2, 7], [3, null], [4, null]]));
    assert_eq!((all("scaled"), all("chosen")), (json!([[1, 100], [2, 80], [4, 60]]), json!([[1]])));
    assert_eq!(all("failures"), json!([["Divide by zero error", 2]]));

    for view in ["divided", "totals"] {
        let verdict = running.ask(&format!("VERIFY MATERIALIZED VIEW {view}"));
        let hint = format!("in batch an error of data fails the whole query: see {view}$errors");
        assert_eq!((&verdict["success"], &verdict["hint"]), (&json!(false), &json!(hint)), "{verdict}");
    }

    // more than one row where one value is asked for: an error of the rows that ask
    let several = "more than one row returned by a subquery used as an expression";
    running.rows("INSERT INTO prices VALUES (3, 'tea', 6), (4, 'cocoa', 1), (5, 'cocoa', 2)");
    assert_eq!(all("priced"), json!([[2, 7], [3, null], [4, null]]));
    assert_eq!(all("priced$errors"), json!([[several, "id = 1, item = tea"]]));
    running.rows("INSERT INTO settings VALUES (2, 20)");
    assert_eq!((all("scaled"), all("chosen")), (json!([]), json!([])));
    assert_eq!(reasons(&running, "scaled"), json!([[several, 4]]));
    assert_ne!(all("chosen$errors"), json!([]));
    let asked = running.ask("SELECT id, (SELECT factor FROM settings) AS f FROM orders");
    assert_eq!((&asked["success"], asked["message"].as_str().unwrap().contains(several)), (&json!(false), true), "{asked}");

    // what is wrong is put right: by a delete, an update, a row that makes a sum fit
    running.rows("DELETE FROM settings WHERE id = 1");
    let overflow = json!([["Arithmetic overflow: Overflow happened on: 9223372036854775807 * 20", 1]]);
    assert_eq!((reasons(&running, "scaled"), all("chosen$errors")), (overflow, json!([])));
    assert_eq!((all("scaled"), all("chosen")), (json!([[1, 200], [2, 160], [4, 120]]), json!([])));
    running.rows("DELETE FROM prices WHERE id = 1");
    assert_eq!((all("priced"), all("priced$errors")), (json!([[1, 6], [2, 7], [3, null], [4, null]]), json!([])));
    running.rows("UPDATE orders SET parts = 4, code = '9' WHERE id = 2");
    running.rows("UPDATE orders SET amount = -6 WHERE id = 4");
    assert_eq!(all("totals"), json!([["milk", 8], ["rye", 9223372036854775801_i64], ["tea", 10]]));
    assert_eq!((all("totals$errors"), all("shop.codes$errors")), (json!([]), json!([])));
    assert_eq!(reasons(&running, "divided"), json!([["Divide by zero error", 1]]));
    running.rows("DELETE FROM orders WHERE id = 4");
    assert_eq!((all("divided$errors"), all("failures")), (json!([]), json!([])));
    assert_eq!(all("divided"), json!([[1, 5], [2, 2], [3, 9223372036854775807_i64]]));
}

#[test]
fn errors_come_and_go_with_their_causes() {
    comes_and_goes(1);
}

#[test]
fn errors_of_several_workers_are_one_relation() {
    comes_and_goes(3);
}

#[test]
fn a_views_errors_are_listed_and_go_with_it() {
    let lake = LakeDir::new(&[("lake.sql", LAKE)]);
    let running = lake.start(&["engine.workers=2"]);
    running.rows("INSERT INTO orders VALUES (1, 'tea', 10, 0, '7')");
    let listed = |name: &str| {
        let relations = running.get("/api/v1/relations")["data"].clone();
        relations.as_array().unwrap().iter().find(|relation| relation["name"] == name).cloned()
    };
    let errors = listed("divided$errors").unwrap();
    assert_eq!((&errors["kind"], &errors["rows"]), (&json!("errors"), &json!(1)), "{errors}");
    let failure = listed("divided").unwrap()["failure"].as_str().unwrap().to_owned();
    assert!(failure.starts_with("1 row could not be computed, see divided$errors: Divide by zero error (id = 1"), "{failure}");
    assert_eq!(running.get("/api/v1/views/divided$errors")["data"][0]["reason"], "Divide by zero error");

    let refused = running.ask("DROP MATERIALIZED VIEW divided");
    assert!(refused["message"].as_str().unwrap().contains("materialized view failures reads it"), "{refused}");
    running.rows("DROP MATERIALIZED VIEW divided CASCADE");
    assert!(listed("divided$errors").is_none() && listed("failures").is_none());
    // made again over what is there, its errors are there at once
    running.rows("CREATE MATERIALIZED VIEW divided AS SELECT id, parts / amount + amount / parts AS part FROM orders");
    assert_eq!(reasons(&running, "divided"), json!([["Divide by zero error", 1]]));
    assert_eq!(running.terminate(), Some(0));

    // and after a restart again
    let running = lake.start(&["engine.workers=2"]);
    assert_eq!(reasons(&running, "divided"), json!([["Divide by zero error", 1]]));
    running.rows("UPDATE orders SET parts = 1 WHERE id = 1");
    assert_eq!(rows(&running, "SELECT * FROM divided$errors"), json!([]));
}

#[test]
fn a_recursion_without_end_is_cut_off_and_says_so() {
    let sql = "
CREATE TABLE roads (id BIGINT PRIMARY KEY, a BIGINT, b BIGINT);
CREATE MATERIALIZED VIEW walks AS
  WITH RECURSIVE walk (at, steps) AS (SELECT a, 0 FROM roads WHERE id = 1 UNION ALL SELECT r.b, steps + 1 FROM walk JOIN roads r ON r.a = walk.at)
  SELECT at, max(steps) AS steps FROM walk GROUP BY at;
CREATE MATERIALIZED VIEW reached AS
  WITH RECURSIVE walk (at) AS (SELECT a FROM roads WHERE id = 1 UNION SELECT r.b FROM walk JOIN roads r ON r.a = walk.at) SELECT at FROM walk;
";
    let lake = LakeDir::new(&[("lake.sql", sql)]);
    let running = lake.start(&["engine.workers=2"]);
    let all = |view: &str| rows(&running, &format!("SELECT * FROM {view} ORDER BY 1"));
    running.rows("INSERT INTO roads VALUES (1, 1, 2), (2, 2, 3), (3, 4, 5)");
    assert_eq!((all("walks"), all("walks$errors")), (json!([[1, 0], [2, 1], [3, 2]]), json!([])));
    // a cycle: every round makes another step
    running.rows("INSERT INTO roads VALUES (4, 3, 1)");
    assert_eq!(reasons(&running, "walks"), json!([["the recursion has not ended after 10000 rounds", 1]]));
    assert_eq!((all("reached"), all("reached$errors")), (json!([[1], [2], [3]]), json!([])));
    running.rows("UPDATE roads SET b = 4 WHERE id = 4");
    assert_eq!((all("walks"), all("walks$errors")), (json!([[1, 0], [2, 1], [3, 2], [4, 3], [5, 4]]), json!([])));
    assert_eq!(all("reached"), json!([[1], [2], [3], [4], [5]]));
}
