//! A running lake, without servers: what statements promise is kept, what is not is refused in words.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use livelake_dataflow::protocol::SubscriptionEvent;

use super::*;
use crate::service::LakeService;

struct Running {
    lake: Lake,
    folder: tempfile::TempDir,
}

async fn run(sql: &str, files: &[(&str, &str)]) -> Running {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lake.sql"), sql).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Running { lake: start(folder.path()).await.unwrap(), folder }
}

async fn start(folder: &std::path::Path) -> Result<Lake, LakeError> {
    let config = Config::load(folder, &Vec::new, &["engine.workers=1".to_owned()]).unwrap();
    let definition = LakeFolder::load(folder).unwrap_or_else(|errors| panic!("{errors:?}"));
    let lake = Lake::open(definition, &config, RunOptions { once: false, asked_for: Vec::new() }).await?;
    lake.start_sources();
    lake.set_ready().await?;
    Ok(lake)
}

impl Running {
    async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>, LakeError> {
        self.lake.execute(sql, Vec::new()).await?.rows.try_collect().await
    }

    /// The rows as text, one a line, values with `|` between.
    async fn text(&self, sql: &str) -> String {
        let batches = self.sql(sql).await.unwrap();
        let mut lines = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let value = |column| arrow::util::display::array_value_to_string(column, row).unwrap();
                lines.push(batch.columns().iter().map(|column| value(column)).collect::<Vec<_>>().join("|"));
            }
        }
        lines.join("\n")
    }

    async fn refused(&self, sql: &str) -> LakeError {
        match self.lake.execute(sql, Vec::new()).await {
            Err(error) => error,
            Ok(answer) => answer.rows.try_collect::<Vec<_>>().await.expect_err(sql),
        }
    }

    /// Waits until a query answers so.
    async fn until(&self, sql: &str, wanted: &str) {
        let wait = async {
            let (mut known, mut seen) = (0, String::new());
            while seen != wanted {
                let (engine, before) = (self.lake.engine().clone(), known);
                known = tokio::task::spawn_blocking(move || engine.wait_beyond(before, Duration::from_secs(5))).await.unwrap();
                seen = self.text(sql).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("{sql}: {} instead of {wanted}", self.text(sql).await);
        }
    }

    fn rows(&self, name: &str) -> Option<u64> {
        self.lake.relations().into_iter().find(|relation| relation.name == name).unwrap().rows
    }
}

#[actix::test]
async fn an_index_serves_lookups_and_joins_and_goes_with_its_relation() {
    let lake = run(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, zone BIGINT, name TEXT);
         CREATE INDEX by_zone ON t (zone);
         CREATE MATERIALIZED VIEW zones AS SELECT id AS zone FROM t WHERE id < 3;
         CREATE MATERIALIZED VIEW pairs AS SELECT z.zone, t.id FROM zones z JOIN t ON t.zone = z.zone;",
        &[],
    )
    .await;
    lake.sql("INSERT INTO t VALUES (1, 2, 'a'), (2, 2, 'b'), (3, NULL, 'c'), (4, 1, 'd')").await.unwrap();
    assert_eq!(lake.text("SELECT name FROM t WHERE zone = 2 ORDER BY id").await, "a\nb");
    assert_eq!(lake.text("SELECT name FROM t WHERE zone = 2 AND id > 1").await, "b");
    assert_eq!(lake.text("SELECT count(*) FROM t WHERE zone = 7").await, "0");
    let asked = lake.text("EXPLAIN SELECT name FROM t WHERE zone = 2").await;
    assert!(asked.contains("by_zone"), "{asked}");
    let kept = lake.text("EXPLAIN MATERIALIZED VIEW pairs").await;
    assert!(kept.contains("Get by_zone"), "{kept}");
    assert_eq!(lake.text("SELECT zone, id FROM pairs ORDER BY 1, 2").await, "1|4\n2|1\n2|2");
    lake.sql("UPDATE t SET zone = 1 WHERE id = 2").await.unwrap();
    lake.sql("DELETE FROM t WHERE zone = 2").await.unwrap();
    assert_eq!(lake.text("SELECT zone, id FROM pairs ORDER BY 1, 2").await, "");
    assert_eq!(lake.text("SELECT id FROM t WHERE zone = 1 ORDER BY id").await, "2\n4");
    assert_eq!(lake.text("SHOW INDEXES").await, "by_zone|public|zone");

    assert_eq!(lake.refused("SELECT * FROM by_zone").await.sqlstate, "42P01");
    assert_eq!(lake.refused("CREATE INDEX other ON t (missing)").await.sqlstate, "42703");
    let error = lake.refused("DROP INDEX by_zone").await;
    assert_eq!((error.code, error.message.as_str()), ("in_use", "by_zone cannot be dropped: pairs uses it"));
    lake.sql("DROP MATERIALIZED VIEW pairs").await.unwrap();
    lake.sql("DROP INDEX by_zone").await.unwrap();
    assert_eq!(lake.text("SELECT id FROM t WHERE zone = 1 ORDER BY id").await, "2\n4");
    lake.sql("CREATE INDEX by_name ON zones (zone)").await.unwrap();
    lake.sql("CREATE INDEX by_zone ON t (zone, name)").await.unwrap();
    assert_eq!(lake.text("SELECT id FROM t WHERE zone = 1 AND name = 'd'").await, "4");
    lake.sql("DROP TABLE t CASCADE").await.unwrap();
    assert_eq!(lake.text("SHOW INDEXES").await, "");
}

#[actix::test]
async fn a_lake_of_constants_is_whole_at_once() {
    let lake = run("CREATE MATERIALIZED VIEW ready AS SELECT 1 AS one;", &[]).await;
    // no input moves its frontier, which is the end of time: nothing is ever reported again
    let first = lake.lake.flush().await.unwrap();
    let flushed = tokio::time::timeout(Duration::from_secs(30), lake.lake.flush()).await;
    assert!(flushed.expect("it does not wait for what never comes").unwrap() > first);
    assert_eq!(lake.text("SELECT one FROM ready").await, "1");
    lake.sql("CREATE TABLE t (a BIGINT PRIMARY KEY)").await.unwrap();
    lake.sql("INSERT INTO t VALUES (7)").await.unwrap();
    assert_eq!(lake.text("SELECT a FROM t").await, "7");
}

#[actix::test]
async fn checks_of_tables_are_enforced() {
    let lake = run(
        "CREATE TABLE shop.items (id BIGINT PRIMARY KEY, price BIGINT CHECK (price > 0), cost BIGINT, CONSTRAINT gain CHECK (cost < price));",
        &[],
    )
    .await;
    lake.sql("INSERT INTO shop.items VALUES (1, 10, 5), (2, NULL, NULL)").await.unwrap();
    let error = lake.refused("INSERT INTO shop.items VALUES (3, 30, 1), (4, -4, -5)").await;
    assert_eq!((error.sqlstate, error.code), ("23514", "check_violation"));
    assert_eq!(error.message, "new row for relation \"shop.items\" violates check constraint \"items_price_check\"");
    assert!(lake.refused("UPDATE shop.items SET cost = 11 WHERE id = 1").await.message.contains("\"gain\""));
    let upsert = "INSERT INTO shop.items VALUES (1, 1, 1) ON CONFLICT (id) DO UPDATE SET cost = 99";
    assert_eq!(lake.refused(upsert).await.sqlstate, "23514");
    lake.sql("UPDATE shop.items SET cost = 9 WHERE id = 1").await.unwrap();
    assert_eq!(lake.text("SELECT id, price, cost FROM shop.items ORDER BY id").await, "1|10|9\n2||");
}

#[actix::test]
async fn checks_of_sources_put_rows_aside() {
    let sql = "CREATE SOURCE shop.items (id BIGINT PRIMARY KEY, price BIGINT CHECK (price > 0), name TEXT)
                 WITH (connector = 'files', path = 'items.csv', header = 'true');
               CREATE MATERIALIZED VIEW shop.total AS SELECT count(*) AS n, sum(price) AS price FROM shop.items;";
    let lake = run(sql, &[("items.csv", "id,price,name\n1,10,a\n2,-1,\"b,c\"\n3,,d\n4,x,e\n")]).await;
    lake.until("SELECT n, price FROM shop.total", "2|10").await;
    let errors = "SELECT position, payload, reason FROM shop.\"items$errors\" WHERE reason LIKE '%check%'";
    let row = "items.csv:3|{\"id\":2,\"price\":-1,\"name\":\"b,c\"}|violates check constraint \"items_price_check\"";
    lake.until(errors, row).await;
    lake.until("SELECT count(*) FROM shop.\"items$errors\"", "2").await;
    let status = lake.lake.sources().pop().unwrap();
    assert_eq!((status.rows, status.errors), (2, 2));
}

#[actix::test]
async fn rows_are_counted_not_updates() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT);
               CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS c FROM t GROUP BY n;";
    let lake = run(sql, &[]).await;
    lake.sql("INSERT INTO t VALUES (1, 1), (2, 2), (3, 2)").await.unwrap();
    for value in 10..20 {
        lake.sql(&format!("UPDATE t SET n = {value} WHERE id = 1")).await.unwrap();
    }
    // history is kept for a while, so there are more updates than rows
    assert_eq!((lake.rows("t"), lake.rows("v")), (Some(3), Some(2)));
    lake.sql("DELETE FROM t WHERE id = 2").await.unwrap();
    assert_eq!((lake.rows("t"), lake.rows("v")), (Some(2), Some(2)));
    let measured = lake.text("EXPLAIN ANALYZE MATERIALIZED VIEW v").await;
    assert!(measured.contains("v: 2 rows, ") && measured.contains("t: 2 rows, "), "{measured}");
    let measured = lake.text("EXPLAIN ANALYZE SELECT n FROM t WHERE id = 3").await;
    assert!(measured.contains("output_rows=1"), "{measured}");
}

#[actix::test]
async fn upserts_and_progress_are_as_asked() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); CREATE TABLE bag (n BIGINT);";
    let lake = run(sql, &[]).await;
    lake.sql("INSERT INTO t VALUES (1, 1)").await.unwrap();
    let subscribe = async |sql: &str| lake.lake.subscribe_sql(sql).await;
    let keys = [
        ("SUBSCRIBE t", None),
        ("SUBSCRIBE t ENVELOPE UPSERT", Some(vec![0])),
        ("SUBSCRIBE t ENVELOPE UPSERT (KEY (id))", Some(vec![0])),
        ("SUBSCRIBE (SELECT n, count(*) AS c FROM t GROUP BY n) ENVELOPE UPSERT (KEY (n))", Some(vec![0])),
    ];
    for (sql, key) in keys {
        assert_eq!(subscribe(sql).await.unwrap().upsert_key, key, "{sql}");
    }
    let refusals = [
        ("SUBSCRIBE t ENVELOPE UPSERT (KEY (n))", "the rows' key is (id), not (n)"),
        ("SUBSCRIBE bag ENVELOPE UPSERT", "have no key"),
        ("SUBSCRIBE t ENVELOPE UPSERT WITH (PROGRESS = false)", "needs progress marks"),
    ];
    for (sql, words) in refusals {
        let error = subscribe(sql).await.unwrap_err();
        assert!(error.message.contains(words), "{sql}: {}", error.message);
    }
    let mut quiet = subscribe("SUBSCRIBE t WITH (PROGRESS = false)").await.unwrap().events;
    for n in 2..4 {
        lake.sql(&format!("UPDATE t SET n = {n} WHERE id = 1")).await.unwrap();
    }
    let mut last = 0;
    while last != 3 {
        match quiet.next().await.unwrap().unwrap() {
            SubscriptionEvent::Changes(changes) => {
                let values = changes.rows.column(1).as_primitive::<arrow::datatypes::Int64Type>();
                last = values.iter().flatten().max().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[actix::test]
async fn what_cannot_be_obeyed_is_refused() {
    let source = |options: &str| {
        format!("CREATE SOURCE s (id BIGINT PRIMARY KEY) WITH (connector = 'files', path = 'none-*.csv', {options});")
    };
    let wrong = [
        (source("schedule = 'often'"), "cron"),
        (source("schedule = '@hourly', poll = '1s'"), "only one"),
        ("CREATE SOURCE s (id BIGINT PRIMARY KEY) WITH (connector = 'kafka', brokers = 'a:1', topic = 't', schedule = '@hourly');".to_owned(), "schedule"),
    ];
    for (sql, words) in wrong {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lake.sql"), &sql).unwrap();
        let errors = connect_all(&LakeFolder::load(folder.path()).unwrap());
        assert!(errors.iter().any(|error| error.to_string().contains(words)), "{sql}: {errors:?}");
    }
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY);";
    for (every, words) in [("soon", "a duration"), ("1s", "epochs.interval")] {
        let folder = tempfile::tempdir().unwrap();
        let sink = format!("CREATE SINK k FROM t WITH (connector = 'iceberg', every = '{every}');");
        std::fs::write(folder.path().join("lake.sql"), format!("{table} {sink}")).unwrap();
        let error = start(folder.path()).await.unwrap_err();
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[actix::test]
async fn a_source_with_a_schedule_is_read_at_the_start_and_then_waits() {
    let sql = "CREATE SOURCE s (id BIGINT PRIMARY KEY) WITH (connector = 'files', path = 's-*.csv', header = 'true', schedule = '0 0 1 1 *');";
    let lake = run(sql, &[("s-1.csv", "id\n1\n2\n")]).await;
    lake.until("SELECT count(*) FROM s", "2").await;
    drop(lake.folder);
}

#[actix::test]
async fn errors_of_a_view_are_followed_and_the_listing_knows_them() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT);
               CREATE TABLE bag (n BIGINT);
               CREATE MATERIALIZED VIEW v AS SELECT id, 12 / n AS q FROM t;
               CREATE VIEW plain AS SELECT 12 / n AS q FROM t;";
    let lake = run(sql, &[]).await;
    lake.sql("INSERT INTO t VALUES (1, 0), (2, 3)").await.unwrap();
    let mut events = lake.lake.subscribe_sql("SUBSCRIBE v$errors WITH (PROGRESS = false)").await.unwrap().events;
    let mut next = async || match events.next().await.unwrap().unwrap() {
        SubscriptionEvent::Changes(changes) => {
            let row = changes.rows.column(1).as_string::<i32>().value(0).to_owned();
            (changes.as_of, row, changes.diffs.values().to_vec())
        }
        other => panic!("{other:?}"),
    };
    let (came, row, diffs) = next().await;
    assert_eq!((row.as_str(), diffs), ("id = 1, n = 0", vec![1]));
    lake.sql("UPDATE t SET n = 4 WHERE id = 1").await.unwrap();
    let (gone, row, diffs) = next().await;
    assert_eq!((row.as_str(), diffs), ("id = 1, n = 0", vec![-1]));
    // a view and its errors agree at every timestamp
    for (as_of, rows, errors) in [(came, "2|4", "1"), (gone, "1|3\n2|4", "0")] {
        assert_eq!(lake.text(&format!("SELECT * FROM v ORDER BY id AS OF {as_of}")).await, rows);
        assert_eq!(lake.text(&format!("SELECT count(*) FROM v$errors AS OF {as_of}")).await, errors);
    }
    assert_eq!(lake.rows("v$errors"), Some(0));
    let names: Vec<String> = lake.lake.relations().into_iter().map(|relation| relation.name).collect();
    assert!(names.contains(&"v$errors".to_owned()) && !names.contains(&"plain$errors".to_owned()), "{names:?}");
    assert_eq!(lake.refused("SELECT q FROM plain$errors").await.code, "unknown_relation");
    let error = lake.refused("SELECT (SELECT id FROM t) AS one FROM bag UNION ALL SELECT (SELECT id FROM t)").await;
    assert_eq!((error.sqlstate, error.code), ("21000", "cardinality_violation"));
    for change in ["UPDATE t SET n = (SELECT id FROM t) WHERE id = 1", "INSERT INTO bag SELECT (SELECT id FROM t)"] {
        assert_eq!(lake.refused(change).await.sqlstate, "21000", "{change}");
    }
    lake.sql("UPDATE t SET n = (SELECT n FROM t o WHERE o.id = t.id + 1) WHERE id = 1 AND EXISTS (SELECT 1 FROM t)")
        .await
        .unwrap();
    assert_eq!(lake.text("SELECT * FROM t ORDER BY id").await, "1|3\n2|3");
}
