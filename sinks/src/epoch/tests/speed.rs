//! How long things take, printed for those who ask (`--nocapture`), asserted only where a mistake would show as a multiple.

use super::*;

fn many(rows: i64, from: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..from + rows);
    let at = TimestampMicrosecondArray::from_iter_values((from..from + rows).map(|i| i * 1_000_000));
    let borough = StringArray::from_iter_values((from..from + rows).map(|i| ["Queens", "Bronx", "Manhattan"][(i % 3) as usize]));
    let amount = Decimal128Array::from_iter_values((from..from + rows).map(|i| i128::from(i * 37 % 10_000)));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(ids), Arc::new(at), Arc::new(borough), Arc::new(amount.with_precision_and_scale(12, 2).unwrap())];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn inserted(batches: Vec<RecordBatch>) -> Vec<(RecordBatch, Int64Array)> {
    batches.into_iter().map(|b| (b.clone(), Int64Array::from(vec![1; b.num_rows()]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_small_tables_in_one_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let mut times = Vec::new();
    for number in 1..=20 {
        let rows = inserted(vec![many(1000, i64::try_from(number).unwrap() * 1000)]);
        let tables = (0..16).map(|t| change(&format!("s.t{t}"), "", SinkMode::Append, rows.clone())).collect();
        let report = lake.commit(&epoch(number), tables, &[], Arc::new(Rows::default())).await.unwrap();
        assert_eq!(report.tables.len(), 17);
        times.push((report.written + report.flipped + report.swept, report.written, report.flipped, report.swept));
    }
    times.sort();
    println!(
        "16 tables + _epochs, 1000 rows each: median (total, written, flipped, swept) {:?}, worst {:?}",
        times[10], times[19]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_rows_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let rows: Vec<_> = (0..16).map(|i| many(65_536, i * 65_536)).collect();
    let count = 16 * 65_536u64;
    for (name, by) in [("s.whole", ""), ("s.days", "day(seen_at), borough")] {
        let started = Instant::now();
        let number = if by.is_empty() { 1 } else { 2 };
        lake.commit(
            &epoch(number),
            vec![change(name, by, SinkMode::Append, inserted(rows.clone()))],
            &[],
            Arc::new(Rows::default()),
        )
        .await
        .unwrap();
        let wrote = started.elapsed();
        let started = Instant::now();
        let (sender, mut receiver) = mpsc::channel(4);
        let table = TableName::parse(name);
        let read = lake.read(&table, schema(), sender);
        let drain = async {
            let mut sum = 0i128;
            while let Some(batch) = receiver.recv().await {
                let amounts: &Decimal128Array = batch.column(3).as_any().downcast_ref().unwrap();
                sum += amounts.values().iter().sum::<i128>();
            }
            sum
        };
        let (read, sum) = tokio::join!(read, drain);
        assert_eq!((read.unwrap(), sum), (count, (0..count).map(|i| i128::from(i * 37 % 10_000)).sum()));
        let back = started.elapsed();
        let rate = |d: Duration| count as f64 / d.as_secs_f64() / 1e6;
        println!("{name}: {count} rows written at {:.2} M/s, read at {:.2} M/s", rate(wrote), rate(back));
    }
}

/// 1,000 rows of a million, from all over the table, are deleted and come back as others.
async fn update_a_large_table(files: FileRules) -> Vec<Duration> {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&LakeOptions { files, ..options(folder.path()) }).await.unwrap();
    let rows: Vec<_> = (0..16).map(|i| many(65_536, i * 65_536)).collect();
    let by_id = |changes| TableChange { key: vec![0], ..change("s.large", "", SinkMode::Snapshot, changes) };
    lake.commit(&epoch(1), vec![by_id(inserted(rows))], &[], Arc::new(Rows::default())).await.unwrap();
    let mut times = Vec::new();
    for number in 2..=12 {
        let from = i64::try_from(number).unwrap();
        let old: Vec<_> = (0..1_000).map(|i| many(1, i * 1_048 + from)).collect();
        let old = concat_batches(&schema(), &old).unwrap();
        let new = many(1_000, 2_000_000 + from * 1_000);
        let changes = vec![(old, Int64Array::from(vec![-1; 1_000])), (new, Int64Array::from(vec![1; 1_000]))];
        let report = lake.commit(&epoch(number), vec![by_id(changes)], &[], Arc::new(Rows::default())).await.unwrap();
        assert_eq!(report.tables.iter().map(|table| table.rows).max(), Some(16 * 65_536));
        times.push(report.written + report.flipped);
    }
    times.sort();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_updates_of_a_large_table() {
    let times = update_a_large_table(FileRules::default()).await;
    println!("1000 updates of 1 M rows: median {:?}, worst {:?}", times[5], times[10]);
    let anew = update_a_large_table(FileRules { thinned_from_bytes: u64::MAX, ..FileRules::default() }).await;
    println!("the same, every file written anew: median {:?}, worst {:?}", anew[5], anew[10]);
    assert!(times[5] < anew[5], "what changes costs less than what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changed_rows_over_sixteen_tables() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let rows = many(100_000, 0);
    let table = |t: usize, changes| {
        let by = if t.is_multiple_of(2) { "" } else { "day(seen_at)" };
        TableChange { key: vec![0], ..change(&format!("s.t{t}"), by, SinkMode::Snapshot, changes) }
    };
    let all = (0..16).map(|t| table(t, inserted(vec![rows.clone()]))).collect();
    lake.commit(&epoch(1), all, &[], Arc::new(Rows::default())).await.unwrap();
    let mut times = Vec::new();
    for number in 2..=12 {
        let from = i64::try_from(number).unwrap();
        let old: Vec<_> = (0..313).map(|i| many(1, i * 317 + from)).collect();
        let old = concat_batches(&schema(), &old).unwrap();
        let changes =
            vec![(old, Int64Array::from(vec![-1; 313])), (many(312, 200_000 + from * 313), Int64Array::from(vec![1; 312]))];
        let all = (0..16).map(|t| table(t, changes.clone())).collect();
        let report = lake.commit(&epoch(number), all, &[], Arc::new(Rows::default())).await.unwrap();
        times.push(report.written + report.flipped);
    }
    times.sort();
    println!("16 tables of 100,000 rows, 625 changed in each: median {:?}, worst {:?}", times[5], times[10]);
}
