//! Tables between epochs: their files change, their rows do not.

use super::*;
use crate::maintenance::{MaintainOptions, TableMaintenance};

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), id))).collect()
}

fn quiet() -> MaintainOptions {
    MaintainOptions { table: Some(TableName::parse("t.a")), busy: false, orphans_after: Duration::from_secs(3600) }
}

/// Commits an epoch that makes the table `t.a`, in days, hold `after`.
async fn step(lake: &Lake, number: u64, before: &Contents, after: &Contents) {
    let changes = vec![change("t.a", "day(seen_at)", SinkMode::Snapshot, difference(before, after))];
    lake.commit(&epoch(number), changes, &[], Arc::new(Rows(after.clone()))).await.unwrap();
}

async fn files(lake: &Lake) -> (usize, u64) {
    let state = lake.state(&TableName::parse("t.a")).await.unwrap();
    let gone = state.live().map(|(_, file)| state.deletes.count(&file.path)).sum();
    (state.live().count(), gone)
}

#[tokio::test]
async fn small_files_of_quiet_partitions_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    // three files on the first day, three on the second
    for number in 1..=6 {
        let id = i64::try_from(number).unwrap() * 8;
        step(&lake, number, &contents(0..id - 8), &contents(0..id)).await;
    }
    let whole = batch(contents(0..48).iter());
    assert_eq!(files(&lake).await.0, 6);
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), [], "what is quiet is seen by looking twice");
    // the second day changes between the two looks
    step(&lake, 7, &contents(0..48), &contents(0..47)).await;
    let done = lake.maintain(&quiet()).await.unwrap();
    let [table] = &done[..] else { panic!("{done:?}") };
    assert_eq!((table.table.as_str(), table.files_rewritten, table.files_written), ("t.a", 3, 1));
    assert_eq!(files(&lake).await.0, 4);
    let done = lake.maintain(&MaintainOptions { table: None, busy: true, ..quiet() }).await.unwrap();
    assert_eq!(
        done.iter().map(|table| table.files_written).sum::<usize>(),
        2,
        "of t.a's second day, and of the epochs: {done:?}"
    );
    assert_eq!(files(&lake).await.0, 2);
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), [], "nothing is left to do");
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(0..47).iter()));

    // the tables still belong to their last epoch, and go on from there, also in a process that starts anew
    let info = lake.tables().await.unwrap().into_iter().find(|info| info.table.name == "a").unwrap();
    assert_eq!(info.epoch, Some(7));
    step(&lake, 8, &contents(0..47), &contents(0..48)).await;
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, whole);
    drop(lake);
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    step(&lake, 9, &contents(0..48), &contents(1..48)).await;
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(1..48).iter()));
}

#[tokio::test]
async fn files_that_lost_rows_are_written_anew_where_no_commit_comes() {
    let folder = tempfile::tempdir().unwrap();
    let files_like = FileRules { thinned_from_bytes: 0, most_gone: 0.5, ..FileRules::default() };
    let lake = Lake::open(&LakeOptions { files: files_like, ..options(folder.path()) }).await.unwrap();
    step(&lake, 1, &Contents::new(), &contents(0..24)).await;
    step(&lake, 2, &contents(0..24), &contents(2..24)).await;
    assert_eq!(files(&lake).await, (1, 2), "a delete file says what is gone");
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), []);
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), [], "two of 24 rows are not worth it");
    step(&lake, 3, &contents(2..24), &contents(4..24)).await;
    assert_eq!(files(&lake).await, (1, 4));
    let deletes = |lake: &Lake| {
        let names = files_below(&lake.warehouse_path());
        names.into_iter().filter(|path| path.to_string_lossy().ends_with("-deletes.parquet")).count()
    };
    assert_eq!(deletes(&lake), 2, "the first is replaced by the second, but the second epoch's snapshot still has it");
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), []);
    let done = lake.maintain(&quiet()).await.unwrap();
    assert_eq!(done.iter().map(|table| (table.files_rewritten, table.deletes_removed)).collect::<Vec<_>>(), [(1, 1)], "{done:?}");
    assert_eq!(files(&lake).await, (1, 0));
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(4..24).iter()));
    // most rows of a file go: that is written anew at once
    step(&lake, 4, &contents(4..24), &contents(20..24)).await;
    assert_eq!(files(&lake).await, (1, 0));
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(20..24).iter()));
}

#[tokio::test]
async fn work_on_files_that_changed_meanwhile_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    step(&lake, 1, &Contents::new(), &contents(0..5)).await;
    step(&lake, 2, &contents(0..5), &contents(0..10)).await;
    let stale = lake.state(&TableName::parse("t.a")).await.unwrap();
    step(&lake, 3, &contents(0..10), &contents(1..10)).await;
    lake.settle().await;
    let before = files_below(&lake.warehouse_path());
    let chosen = stale.live().map(|(_, file)| file.clone()).collect();
    let mut report = TableMaintenance::default();
    lake.rearrange(&stale, chosen, &mut report).await.unwrap();
    assert!(report.changed_meanwhile);
    assert_eq!(files_below(&lake.warehouse_path()), before, "its files are gone");
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(1..10).iter()));

    // rows that only came since are no hindrance
    let stale = lake.state(&TableName::parse("t.a")).await.unwrap();
    step(&lake, 4, &contents(1..10), &contents(1..30)).await;
    let chosen = stale.live().map(|(_, file)| file.clone()).collect();
    let mut report = TableMaintenance::default();
    lake.rearrange(&stale, chosen, &mut report).await.unwrap();
    assert!(!report.changed_meanwhile);
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(1..30).iter()));
}

#[tokio::test]
async fn files_that_nobody_reaches_go_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    for number in 1..=3 {
        let id = i64::try_from(number).unwrap() * 8;
        step(&lake, number, &contents(0..id - 8), &contents(0..id)).await;
    }
    lake.settle().await;
    let before = files_below(&lake.warehouse_path());
    let table = lake.warehouse_path().join("t/a");
    let left = [
        table.join("data/epoch-4-killed-00001.parquet"),
        table.join("metadata/killed-m0.avro"),
        table.join("metadata/00009-killed.metadata.json"),
    ];
    left.iter().for_each(|path| std::fs::write(path, b"left by a killed process").unwrap());
    let other = table.join("data/README");
    std::fs::write(&other, b"somebody's").unwrap();
    assert_eq!(lake.maintain(&quiet()).await.unwrap(), [], "they are young");
    let done = lake.maintain(&MaintainOptions { orphans_after: Duration::ZERO, ..quiet() }).await.unwrap();
    let found: Vec<_> = done.iter().map(|table| (table.table.as_str(), table.orphans_removed, table.orphan_bytes)).collect();
    assert_eq!(found.iter().map(|(table, files, _)| (*table, *files)).collect::<Vec<_>>(), [("t.a", 3)]);
    assert!(found[0].2 >= 24 * 3);
    assert!(other.exists() && left.iter().all(|path| !path.exists()));
    lake.settle().await;
    let mut after = files_below(&lake.warehouse_path());
    after.remove(&other);
    assert!(
        before.iter().filter(|path| path.starts_with(&table)).all(|path| after.contains(path)),
        "kept snapshots keep their files"
    );
    assert_eq!(rows_of(&lake, "t.a", &schema()).await, batch(contents(0..24).iter()));
}

#[tokio::test]
async fn only_the_writer_maintains_and_only_tables_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    step(&lake, 1, &Contents::new(), &contents(0..5)).await;
    step(&lake, 2, &contents(0..5), &contents(0..10)).await;
    let unknown = MaintainOptions { table: Some(TableName::parse("t.none")), ..quiet() };
    assert!(matches!(lake.maintain(&unknown).await.unwrap_err(), SinkError::NoTable(_)));
    let reader = Lake::open_reader(&options(folder.path())).await.unwrap();
    let said = reader.maintain(&MaintainOptions { busy: true, ..quiet() }).await.unwrap_err().to_string();
    assert!(said.contains("opened for reading"), "{said}");
}
