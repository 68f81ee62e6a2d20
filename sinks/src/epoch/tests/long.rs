//! A long life: thousands of epochs with maintenance between them. Files stay few, metadata stays small, memory stays flat.
//!
//! `LIVELAKE_EPOCHS` says how many epochs (600). Of three months of epochs every ten seconds the files are what is looked at here; a day of them
//! is 60 epochs unless it says otherwise (`LIVELAKE_EPOCHS_A_DAY`).

use super::*;
use crate::maintenance::MaintainOptions;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The rows that are there after some epochs: ten an epoch, of which two go two epochs later.
fn row(id: i64, a_day: i64) -> (i64, (Option<i64>, Option<String>, i64)) {
    let at = id / 10 * 86_400_000_000 / a_day + id % 10;
    (id, (Some(at), Some(["Queens", "Bronx"][(id % 2) as usize].to_string()), id * 7 % 10_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_stay_few_and_metadata_small() {
    let (epochs, a_day) = (setting("LIVELAKE_EPOCHS", 600), setting("LIVELAKE_EPOCHS_A_DAY", 60).cast_signed());
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&LakeOptions { keep: 20, ..options(folder.path()) }).await.unwrap();
    let pass = MaintainOptions { table: None, busy: false, orphans_after: Duration::from_secs(60) };
    let (begun, mut early, mut longest) = (Instant::now(), 0, Duration::ZERO);
    for number in 1..=epochs {
        let first = number.cast_signed() * 10;
        let came: Contents = (first..first + 10).map(|id| row(id, a_day)).collect();
        let went: Contents = (first - 20..first - 18).filter(|id| *id >= 10).map(|id| row(id, a_day)).collect();
        let changes = vec![
            (batch(went.iter()), Int64Array::from(vec![-1; went.len()])),
            (batch(came.iter()), Int64Array::from(vec![1; came.len()])),
        ];
        let tables = vec![
            TableChange { key: vec![0], ..change("l.days", "day(seen_at)", SinkMode::Snapshot, changes.clone()) },
            TableChange { key: vec![0], ..change("l.whole", "", SinkMode::Snapshot, changes.clone()) },
            change("l.log", "day(seen_at), borough", SinkMode::Changelog, changes),
        ];
        let report = lake.commit(&epoch(number), tables, &[], Arc::new(Rows::default())).await.unwrap();
        longest = longest.max(report.written + report.flipped);
        if number % 60 == 0 {
            lake.maintain(&pass).await.unwrap();
        }
        if number == epochs / 3 {
            early = resident();
        }
    }
    let took = begun.elapsed();
    let grown = resident() as f64 / early as f64;
    // as it is while it runs: what is quiet is one file, what is written to has a few small ones
    let days = epochs.div_ceil(a_day.unsigned_abs()) as usize;
    for (table, partitions) in [("l.days", days), ("l.whole", 1), ("l.log", days * 2)] {
        let state = lake.state(&TableName::parse(table)).await.unwrap();
        let (files, metadata) = (state.live().count(), std::fs::metadata(local_path(&state.location)).unwrap().len());
        println!(
            "{table}: {files} files in {partitions} partitions, {metadata} bytes of metadata, {} manifests",
            state.manifests.len()
        );
        // two partitions are written to, or were a moment ago
        assert!(files <= partitions * 2 + 4 * 16, "{table} has {files} files in {partitions} partitions");
        assert!(metadata < 1 << 20, "{table} has {metadata} bytes of metadata");
        assert!(state.manifests.len() <= 100);
    }
    let before = rows_of(&lake, "l.days", &schema()).await;
    let all = MaintainOptions { busy: true, orphans_after: Duration::ZERO, ..pass };
    lake.maintain(&all).await.unwrap();
    lake.settle().await;
    for (table, partitions) in [("l.days", days), ("l.whole", 1), ("l.log", days * 2)] {
        let state = lake.state(&TableName::parse(table)).await.unwrap();
        assert!(state.live().count() <= partitions * 2, "{table} has {} files in {partitions} partitions", state.live().count());
    }
    let expected: Contents = (10..(epochs.cast_signed() + 1) * 10)
        .filter(|id| id % 10 >= 2 || *id >= (epochs.cast_signed() - 1) * 10)
        .map(|id| row(id, a_day))
        .collect();
    assert_eq!(before, batch(expected.iter()));
    assert_eq!(rows_of(&lake, "l.days", &schema()).await, before);
    assert_eq!(rows_of(&lake, "l.whole", &schema()).await, before);
    println!("{epochs} epochs in {took:?}, the longest {longest:?}; memory {grown:.2} times that of a third of the way");
    assert!(epochs < 3_000 || grown < 1.5, "memory grew {grown:.2} times");
}
