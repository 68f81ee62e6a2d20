//! What tables were at earlier epochs, and going back to one.

use super::*;
use crate::epoch::RowCounts;

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), id))).collect()
}

/// The rows of a table at an epoch.
async fn rows_at(lake: &Lake, table: &str, epoch: u64) -> Result<RecordBatch, SinkError> {
    let (sender, mut receiver) = mpsc::channel(100);
    let read = lake.read_at(&TableName::parse(table), epoch, schema(), sender).await;
    let mut batches = Vec::new();
    while let Some(batch) = receiver.recv().await {
        batches.push(batch);
    }
    let whole = concat_batches(&schema(), &batches).unwrap();
    assert_eq!(read?, whole.num_rows() as u64);
    let by = [arrow::compute::SortColumn { values: whole.column(0).clone(), options: None }];
    Ok(take_record_batch(&whole, &lexsort_to_indices(&by, None).unwrap()).unwrap())
}

async fn step(lake: &Lake, number: u64, tables: &[(&str, &Contents, &Contents)]) {
    let changes = tables.iter().map(|(name, before, after)| {
        let changes = difference(before, after);
        TableChange { key: vec![0], ..change(name, "day(seen_at)", SinkMode::Snapshot, changes) }
    });
    lake.commit(&epoch(number), changes.collect(), &[], Arc::new(Rows::default())).await.unwrap();
}

#[tokio::test]
async fn tables_are_read_as_they_were_while_their_snapshots_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    // delete files too
    let files = FileRules { thinned_from_bytes: 0, most_gone: 0.9, ..FileRules::default() };
    let lake = Lake::open(&LakeOptions { files, ..options(folder.path()) }).await.unwrap();
    let states: Vec<Contents> = (0..8).map(|n| contents(n * 2..20 + n * 3)).collect();
    step(&lake, 1, &[("h.a", &Contents::new(), &states[0]), ("h.b", &Contents::new(), &states[0])]).await;
    for number in 2..=8u64 {
        let at = usize::try_from(number).unwrap();
        step(&lake, number, &[("h.a", &states[at - 2], &states[at - 1])]).await;
    }
    // four snapshots are kept
    for number in 5..=8u64 {
        let expected = batch(states[usize::try_from(number).unwrap() - 1].iter());
        assert_eq!(rows_at(&lake, "h.a", number).await.unwrap(), expected, "epoch {number}");
    }
    let said = rows_at(&lake, "h.a", 4).await.unwrap_err().to_string();
    assert!(said.contains("epoch 4") && said.contains("the oldest are those of epoch 5"), "{said}");
    assert_eq!(rows_at(&lake, "h.b", 3).await.unwrap(), batch(states[0].iter()), "a table that did not change is as it was");
    let record = lake.epoch(6).await.unwrap().unwrap();
    assert_eq!(record.rows["h.a"], RowCounts { added: 3, removed: 2 });
    assert_eq!(lake.epoch_at(6_999_999).await.unwrap().unwrap().number, 6);
    assert!(lake.epoch_at(999_999).await.unwrap().is_none());
    assert!(lake.epoch(9).await.unwrap().is_none());
}

#[tokio::test]
async fn young_snapshots_are_kept_beyond_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&LakeOptions { keep_for: Duration::from_secs(3600), ..options(folder.path()) }).await.unwrap();
    for number in 1..=9u64 {
        let n = i64::try_from(number).unwrap();
        step(&lake, number, &[("h.a", &contents(0..n - 1), &contents(0..n))]).await;
    }
    for number in 1..=9u64 {
        assert_eq!(rows_at(&lake, "h.a", number).await.unwrap().num_rows() as u64, number);
    }
}

#[tokio::test]
async fn all_tables_go_back_to_an_epoch_together() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let (one, two, three) = (contents(0..30), contents(5..40), contents(20..25));
    step(&lake, 1, &[("h.a", &Contents::new(), &one), ("h.b", &Contents::new(), &one)]).await;
    step(&lake, 2, &[("h.a", &one, &two)]).await;
    step(&lake, 3, &[("h.a", &two, &three), ("h.b", &one, &two), ("h.c", &Contents::new(), &one)]).await;
    let said = rows_at(&lake, "h.c", 2).await.unwrap_err().to_string();
    assert!(said.contains("h.c was not there at epoch 2"), "{said}");
    assert!(lake.restore(7).await.unwrap_err().to_string().contains("no epoch 7"));
    let report = lake.restore(2).await.unwrap();
    assert_eq!(report.epoch, 4);
    let newest = lake.newest().await.unwrap().unwrap();
    assert_eq!((newest.number, &newest.positions), (4, &epoch(2).positions));
    assert!(newest.timestamp > epoch(3).timestamp);
    for (table, rows) in [("h.a", &two), ("h.b", &one), ("h.c", &Contents::new())] {
        assert_eq!(rows_of(&lake, table, &schema()).await, batch(rows.iter()), "{table}");
    }
    assert_eq!(rows_at(&lake, "h.c", 4).await.unwrap().num_rows(), 0, "it was there, without rows");
    // what was left is there still
    assert_eq!(rows_at(&lake, "h.a", 3).await.unwrap(), batch(three.iter()));
    // and it goes on, in another process too
    drop(lake);
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let after = contents(6..50);
    step(&lake, 5, &[("h.a", &two, &after), ("h.b", &one, &after)]).await;
    for number in 6..=12u64 {
        step(&lake, number, &[("h.a", &after, &after)]).await;
    }
    assert_eq!(rows_of(&lake, "h.a", &schema()).await, batch(after.iter()));
    assert_eq!(rows_of(&lake, "h.b", &schema()).await, batch(after.iter()));
    let reader = Lake::open_reader(&options(folder.path())).await.unwrap();
    assert!(reader.restore(1).await.unwrap_err().to_string().contains("opened for reading"));
}

#[tokio::test]
async fn an_epoch_that_is_not_whole_any_more_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    step(&lake, 1, &[("h.a", &Contents::new(), &contents(0..3)), ("h.b", &Contents::new(), &contents(0..3))]).await;
    for number in 2..=8u64 {
        let n = i64::try_from(number).unwrap();
        step(&lake, number, &[("h.a", &contents(0..n + 1), &contents(0..n + 2))]).await;
    }
    step(&lake, 9, &[("h.b", &contents(0..3), &contents(0..9))]).await;
    lake.settle().await;
    let before = files_below(&lake.warehouse_path());
    let said = lake.restore(2).await.unwrap_err().to_string();
    assert!(said.contains("h.a") && said.contains("no longer kept"), "{said}");
    assert_eq!(files_below(&lake.warehouse_path()), before);
    assert_eq!(lake.newest().await.unwrap().unwrap().number, 9);
    assert_eq!(rows_of(&lake, "h.b", &schema()).await, batch(contents(0..9).iter()));
}
