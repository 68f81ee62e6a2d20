//! What a user does with a lake's past: look at an epoch, list epochs, maintain the tables, go back.

use serde_json::json;

use crate::process::LakeDir;

const LAKE: &str = "
CREATE TABLE shop.items (id BIGINT PRIMARY KEY, shelf TEXT, price DECIMAL(10, 2));
CREATE MATERIALIZED VIEW shop.shelves AS SELECT shelf, count(*) AS items, sum(price) AS price FROM shop.items GROUP BY shelf;
CREATE MATERIALIZED VIEW shop.unkept AS SELECT count(*) AS items FROM shop.items;
CREATE SINK sinks.items FROM shop.items WITH (connector = 'iceberg', table = 'shop.items');
CREATE SINK sinks.shelves FROM shop.shelves WITH (connector = 'iceberg', table = 'shop.shelves');
";

#[test]
fn a_lake_is_looked_at_and_taken_back_by_epochs() {
    let lake = LakeDir::new(&[("10_lake.sql", LAKE)]);
    // memory reaches back a millisecond only, so that what is older comes from snapshots
    let settings = ["engine.retention=1ms", "maintenance.interval=0s"];
    let running = lake.start(&settings);
    running.rows("INSERT INTO shop.items VALUES (1, 'a', 1.50), (2, 'a', 2.00), (3, 'b', 4.25)");
    let first = running.epoch();
    running.rows("UPDATE shop.items SET shelf = 'b', price = 9.00 WHERE id = 1");
    let second = running.epoch();
    running.rows("DELETE FROM shop.items WHERE shelf = 'b'");
    let third = running.epoch();
    assert!(first < second && second < third);
    running.rows("FLUSH");

    let shelves = |as_of: &str| running.rows(&format!("SELECT shelf, items, price FROM shop.shelves ORDER BY shelf {as_of}"));
    let one = json!([{"shelf": "a", "items": 2, "price": 3.5}, {"shelf": "b", "items": 1, "price": 4.25}]);
    let two = json!([{"shelf": "a", "items": 1, "price": 2.0}, {"shelf": "b", "items": 2, "price": 13.25}]);
    let three = json!([{"shelf": "a", "items": 1, "price": 2.0}]);
    assert_eq!(shelves(&format!("AS OF EPOCH {first}")), one);
    assert_eq!(shelves(&format!("AS OF EPOCH {second}")), two);
    assert_eq!(shelves(&format!("AS OF EPOCH {third}")), three);
    assert_eq!(shelves(""), three);
    // relations of one query are all of one epoch, and a key is sought there too
    let joined = "SELECT i.id, s.items FROM shop.items i JOIN shop.shelves s USING (shelf) WHERE i.id = 1";
    assert_eq!(running.rows(&format!("{joined} AS OF EPOCH {first}")), json!([{"id": 1, "items": 2}]));
    assert_eq!(running.rows(&format!("{joined} AS OF EPOCH {second}")), json!([{"id": 1, "items": 2}]));
    assert_eq!(running.rows(&format!("{joined} AS OF EPOCH {third}")), json!([]));
    // a time is answered as of the epoch at or before it
    let of = |epoch: u64| {
        let epochs = running.get("/api/v1/epochs");
        let found = epochs["data"].as_array().unwrap().iter().find(|found| found["epoch"] == epoch).unwrap().clone();
        found["as_of"].as_u64().unwrap()
    };
    assert_eq!(shelves(&format!("AS OF {}", of(second) - 1)), one);
    assert_eq!(shelves(&format!("AS OF {}", of(second))), two);
    let refused = |sql: &str| running.ask(sql)["message"].as_str().unwrap().to_owned();
    assert!(refused("SELECT * FROM shop.items AS OF EPOCH 99").contains("there is no epoch 99"));
    assert!(refused("SELECT * FROM shop.items AS OF 1").contains("no epoch at or before 1"));
    let unkept = refused(&format!("SELECT * FROM shop.unkept AS OF EPOCH {first}"));
    assert!(unkept.contains("shop.unkept") && unkept.contains("CREATE SINK"), "{unkept}");

    // a file has the rows of one of these moments
    let then = format!("SELECT shelf, items FROM shop.shelves ORDER BY shelf AS OF EPOCH {first}");
    running.rows(&format!("COPY ({then}) TO 'old/shelves.csv'"));
    let file = |name: &str| std::fs::read_to_string(lake.path().join("exports").join(name)).unwrap();
    assert_eq!(file("old/shelves.csv"), "shelf,items\na,2\nb,1\n");
    running.rows("COPY shop.shelves (items) TO 'shelves' WITH (FORMAT ndjson)");
    assert_eq!(file("shelves"), "{\"items\":1}\n");
    assert!(refused("COPY shop.items TO '../items.csv'").contains("without .."));
    assert!(refused("COPY shop.items TO 'items'").contains("does not say the format"));
    assert_eq!(std::fs::read_dir(lake.path().join("exports")).unwrap().count(), 2, "no half file stays");

    let epochs = running.rows("SHOW EPOCHS");
    let of_second = |row: &&serde_json::Value| row["epoch"] == second && row["table"] == "shop.items";
    let row = epochs.as_array().unwrap().iter().find(of_second).unwrap();
    assert_eq!((&row["rows_added"], &row["rows_removed"]), (&json!(1), &json!(1)));
    let done = running.rows("VACUUM");
    assert!(done.as_array().unwrap().iter().any(|row| row["files_rewritten"].as_u64() > Some(1)), "{done}");
    assert_eq!(shelves(""), three);
    assert_eq!(shelves(&format!("AS OF EPOCH {second}")), two);
    assert!(refused("VACUUM shop.nothing").contains("no table shop.nothing"));
    assert_eq!(running.terminate(), Some(0));

    let listed = lake.expect(&["epochs", "--format", "csv"]);
    assert!(listed.lines().any(|line| line.starts_with(&format!("{second},")) && line.ends_with("shop.items,1,1")), "{listed}");
    let said = lake.refused(&["restore", "--epoch", "99"], 1);
    assert!(said.contains("no epoch 99"), "{said}");
    let said = lake.expect(&["restore", "--epoch", &second.to_string()]);
    assert!(said.contains(&format!("shop.items: 3 rows, as at epoch {second} (it had 1)")), "{said}");
    lake.expect(&["maintain", "--orphans-after", "0s"]);

    let running = lake.start(&settings);
    let shelves = |as_of: &str| running.rows(&format!("SELECT shelf, items, price FROM shop.shelves ORDER BY shelf {as_of}"));
    assert_eq!(shelves(""), two);
    running.rows("INSERT INTO shop.items VALUES (7, 'c', 1.00)");
    running.rows("FLUSH");
    assert_eq!(shelves(&format!("AS OF EPOCH {third}")), three, "what was left can be looked at still");
    assert_eq!(running.rows("SELECT count(*) AS n FROM shop.items"), json!([{"n": 4}]));
    let said = lake.refused(&["maintain"], 1);
    assert!(said.contains("is being written by"), "{said}");
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn a_changed_folder_changes_the_tables_in_one_epoch_and_check_tells_before() {
    let lake = LakeDir::new(&[("10_lake.sql", LAKE)]);
    let running = lake.start(&[]);
    running.rows("INSERT INTO shop.items VALUES (1, 'a', 1.50), (2, 'b', 2.00)");
    running.rows("FLUSH");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(lake.expect(&["check"]).lines().count(), 1, "nothing changes");
    assert_eq!(lake.tables().keys().collect::<Vec<_>>(), ["shop.items", "shop.shelves"]);
    let epochs = lake.epochs().len();

    // a column more, a view's table less, one more; the base's own sink goes too
    let changed = "
        CREATE TABLE shop.items (id BIGINT PRIMARY KEY, shelf TEXT, price DECIMAL(10, 2) COMMENT 'in dollars', note TEXT);
        CREATE MATERIALIZED VIEW shop.shelves AS SELECT shelf, count(*) AS items, sum(price) AS price FROM shop.items GROUP BY shelf;
        CREATE MATERIALIZED VIEW shop.notes AS SELECT note, count(*) AS items FROM shop.items GROUP BY note;
        CREATE SINK sinks.items FROM shop.items WITH (connector = 'iceberg', table = 'shop.items');
        CREATE SINK sinks.notes FROM shop.notes WITH (connector = 'iceberg', table = 'shop.notes');";
    std::fs::write(lake.path().join("10_lake.sql"), changed).unwrap();
    let told = lake.expect(&["check"]);
    let told: Vec<&str> = told.lines().skip(1).collect();
    assert_eq!(
        told,
        [
            "table shop.items changes: price's comment, +note string (rows that are there stay as they are)",
            "table shop.notes is made",
            "table shop.shelves is written by nothing any more: it leaves the catalog, its files stay",
        ]
    );
    let running = lake.start(&[]);
    assert_eq!(
        running.rows("SELECT id, note FROM shop.items ORDER BY id"),
        json!([{"id": 1, "note": null}, {"id": 2, "note": null}])
    );
    running.next_epoch();
    assert_eq!(running.terminate(), Some(0));
    let tables = lake.tables();
    assert_eq!(tables.keys().collect::<Vec<_>>(), ["shop.items", "shop.notes"]);
    assert_eq!(tables["shop.items"], ["1|a|1.50|NULL", "2|b|2.00|NULL"]);
    assert_eq!(tables["shop.notes"], ["NULL|2"]);
    assert_eq!(lake.epochs().len(), epochs + 1, "all of it in one epoch");
    assert_eq!(lake.expect(&["check"]).lines().count(), 1, "nothing changes any more");
}
