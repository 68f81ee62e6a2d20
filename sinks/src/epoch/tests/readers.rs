//! pyiceberg, DuckDB and iceberg-rust's own catalog read what we write: rows, sums, and rows after pruning.

use std::process::Command;

use futures::TryStreamExt;
use iceberg::{Catalog as _, CatalogBuilder, TableIdent};
use iceberg_catalog_sql::SqlCatalogBuilder;

use super::*;

const HOUR: i64 = 3_600_000_000;

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    let borough =
        |id: i64| (id % 5 != 0).then(|| ["Queens", "Bronx", "Staten Island"][usize::try_from(id % 3).unwrap()].to_string());
    numbers.map(|id| (id, (Some(1_740_960_000_000_000 + id * HOUR), borough(id), id * 7))).collect()
}

pub(super) fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("livelake/readers/bin/python")).filter(|p| p.exists())
}

/// Twelve epochs with inserts, retractions, an expiry, a changed schema; the tables as they are then.
pub(super) async fn written(folder: &Path) -> (Lake, Contents) {
    // files that lose rows get delete files, as large ones do
    let files = FileRules { thinned_from_bytes: 0, most_gone: 0.6, ..FileRules::default() };
    let lake = Lake::open(&LakeOptions { files, ..options(folder) }).await.unwrap();
    let mut before = Contents::new();
    let parts = [
        ("r.whole", ""),
        ("r.day", "day(seen_at)"),
        ("r.hour_borough", "hour(seen_at), borough"),
        ("r.month", "month(seen_at)"),
        ("r.year", "year(seen_at)"),
        ("r.bucket", "bucket(3, id)"),
        ("r.truncate", "truncate(100, id), truncate(2, borough)"),
    ];
    for number in 1..=12i64 {
        let after = contents(number * 10..number * 60);
        let changes = difference(&before, &after);
        let mut tables: Vec<_> = parts.iter().map(|(t, by)| change(t, by, SinkMode::Snapshot, changes.clone())).collect();
        tables.push(change("r.log", "day(seen_at)", SinkMode::Changelog, changes));
        lake.commit(&epoch(number.unsigned_abs()), tables, &[], Arc::new(Rows(after.clone()))).await.unwrap();
        before = after;
    }
    for table in ["r.whole", "r.month", "r.year", "r.bucket"] {
        let state = lake.state(&TableName::parse(table)).await.unwrap();
        assert!(state.live().any(|(_, file)| state.deletes.count(&file.path) > 0), "{table} has delete files");
    }
    (lake, before)
}

#[tokio::test]
async fn pyiceberg_and_duckdb_read_the_same() {
    let Some(python) = python() else {
        println!("not compared with pyiceberg and DuckDB: run tests/readers/setup.sh first");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (lake, after) = written(folder.path()).await;
    let cents: i64 = after.values().map(|r| r.2).sum();
    let bronx = after.values().filter(|r| r.1.as_deref() == Some("Bronx")).count();
    let late = after.values().filter(|r| r.0.unwrap() >= 1_740_960_000_000_000 + 700 * HOUR).count();
    let late_stamp = "2025-04-01T04:00:00";
    assert_eq!(after.keys().filter(|id| **id >= 700).count(), late);
    let like = serde_json::json!({
        "rows": after.len(),
        "columns": ["id", "seen_at", "borough", "amount"],
        "sums": {"id": after.keys().sum::<i64>(), "amount": format!("{}.{:02}", cents / 100, cents % 100)},
        "distinct": {"borough": 3},
        "where": {"borough = 'Bronx'": bronx, "id >= 700": after.range(700..).count(), format!("seen_at >= '{late_stamp}'"): late,
                  "borough IS NULL": after.values().filter(|r| r.1.is_none()).count()},
    });
    let mut tables = serde_json::Map::new();
    for table in ["whole", "day", "hour_borough", "month", "year", "bucket", "truncate"] {
        tables.insert(format!("r.{table}"), like.clone());
    }
    let log = lake.tables().await.unwrap().into_iter().find(|t| t.table.name == "log").unwrap();
    let columns = ["id", "seen_at", "borough", "amount", "_op", "_timestamp"];
    // Ten of the oldest went with each epoch but the first.
    let dead = 110;
    tables.insert("r.log".into(), serde_json::json!({"rows": log.rows, "columns": columns, "where": {"_op = '-D'": dead}}));
    tables.insert("livelake._epochs".into(), serde_json::json!({"rows": 12, "sums": {"epoch": 78}}));
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, serde_json::json!({"epoch": 12, "tables": tables}).to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/readers/compare.py");
    let out = Command::new(python).arg(script).arg(catalog_file(&lake)).arg(&expected).output().unwrap();
    assert!(
        out.status.success(),
        "the readers differ:\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

#[tokio::test]
async fn the_crates_own_catalog_and_scan_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, after) = written(folder.path()).await;
    let properties = HashMap::from([
        ("uri".to_string(), format!("sqlite:{}", catalog_file(&lake).display())),
        ("warehouse".to_string(), format!("file://{}", lake.warehouse_path().display())),
    ]);
    let builder = SqlCatalogBuilder::default().with_storage_factory(Arc::new(iceberg::io::LocalFsStorageFactory));
    let catalog = builder.load("iceberg", properties).await.unwrap();
    let table = catalog.load_table(&TableIdent::from_strs(["r", "hour_borough"]).unwrap()).await.unwrap();
    let summary = &table.metadata().current_snapshot().unwrap().summary().additional_properties;
    let total = |key: &str| summary[key].parse::<usize>().unwrap();
    let left = total("total-records") - total("total-position-deletes");
    assert_eq!((summary["livelake.epoch"].as_str(), left), ("12", after.len()));
    assert_eq!(table.metadata().properties()["livelake.timestamp"], "12000000");
    let batches: Vec<RecordBatch> = table.scan().build().unwrap().to_arrow().await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), after.len());
}
