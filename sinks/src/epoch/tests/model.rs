//! Random sequences of epochs: after every one, each table equals the model, also when read by a lake opened anew.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const DAY: i64 = 86_400_000_000;

/// A few inserts, updates and deletes.
fn step(rng: &mut SmallRng, contents: &Contents, next: &mut i64) -> Contents {
    let mut after = contents.clone();
    for _ in 0..rng.random_range(0..30) {
        let row = (
            rng.random_bool(0.95).then(|| rng.random_range(-3..3) * DAY + rng.random_range(0..DAY)),
            ["Queens", "Bronx", "a/b %"].get(rng.random_range(0..4)).map(|s| s.to_string()),
            rng.random_range(-1000..1000),
        );
        let known = after.keys().nth(rng.random_range(0..after.len().max(1))).copied();
        match (rng.random_range(0..10), known) {
            (0, Some(id)) => drop(after.remove(&id)),
            (1, Some(id)) => drop(after.insert(id, row)),
            _ => {
                after.insert(*next, row);
                *next += 1;
            }
        }
    }
    after
}

async fn run(seed: u64, partition_by: &str, epochs: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    // every file counts as large, so that files are thinned
    let files = FileRules { thinned_from_bytes: 0, most_gone: 0.5, small_files: 6, ..FileRules::default() };
    let options = |path: &Path| LakeOptions { files, ..options(path) };
    let mut lake = Lake::open(&options(folder.path())).await.unwrap();
    let (mut contents, mut ever, mut log, mut next) = (Contents::new(), Contents::new(), 0usize, 0);
    for number in 1..=epochs {
        let after = match rng.random_range(0..20) {
            0 => contents.clone(),
            1 => Contents::new(),
            _ => step(&mut rng, &contents, &mut next),
        };
        let changes = difference(&contents, &after);
        let came: Contents = after.iter().filter(|(k, _)| !ever.contains_key(k)).map(|(k, v)| (*k, v.clone())).collect();
        log += changes.iter().map(|(b, _)| b.num_rows()).sum::<usize>();
        let by_id = TableChange { key: vec![0], ..change("m.by_id", partition_by, SinkMode::Snapshot, changes.clone()) };
        let tables = vec![
            by_id,
            change("m.parts", partition_by, SinkMode::Snapshot, changes.clone()),
            change("m.whole", "", SinkMode::Snapshot, changes.clone()),
            change("m.log", partition_by, SinkMode::Changelog, changes),
            change("m.ever", partition_by, SinkMode::Append, difference(&Contents::new(), &came)),
        ];
        ever.extend(came);
        let report = lake.commit(&epoch(number), tables, &[], Arc::new(Rows(after.clone()))).await.unwrap();
        if after == contents && number > 1 {
            assert_eq!(report.tables.len(), 1, "only the epochs' own table changes: {report:?}");
        }
        contents = after;
        if rng.random_range(0..5) == 0 {
            lake.settle().await;
            drop(lake);
            lake = Lake::open(&options(folder.path())).await.unwrap();
        }
        for table in ["m.by_id", "m.parts", "m.whole"] {
            assert_eq!(rows_of(&lake, table, &schema()).await, batch(contents.iter()), "{table}, seed {seed}, epoch {number}");
        }
        assert_eq!(rows_of(&lake, "m.ever", &schema()).await, batch(ever.iter()), "seed {seed}, epoch {number}");
        assert_eq!(rows_of(&lake, "m.log", &schema()).await.num_rows(), log, "seed {seed}, epoch {number}");
        let newest = lake.newest().await.unwrap().unwrap();
        assert_eq!((newest.number, newest.timestamp, &newest.positions), (number, number * 1_000_000, &epoch(number).positions));
    }
    let columns = Arc::new(Schema::new(vec![Field::new("epoch", DataType::Int64, true)]));
    let noted = rows_of(&lake, "livelake._epochs", &columns).await;
    assert_eq!(noted.column(0).as_ref(), &Int64Array::from_iter_values(1..=epochs.cast_signed()) as &dyn Array);
    everything_is_reachable(&lake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_equal_the_model_by_day_and_borough() {
    run(1, "day(seen_at), borough", 40).await;
}

#[tokio::test]
async fn tables_equal_the_model_by_bucket_on_one_thread() {
    run(2, "bucket(4, id), truncate(1, borough)", 60).await;
}

#[tokio::test]
async fn tables_equal_the_model_by_hour() {
    run(3, "hour(seen_at)", 12).await;
}

/// After many epochs nothing is left of snapshots that were forgotten, and nothing that retained ones need is gone.
pub(super) async fn everything_is_reachable(lake: &Lake) {
    lake.settle().await;
    let mut reached = std::collections::BTreeSet::new();
    let (io, files) = (&lake.files().io, lake.files());
    for info in lake.tables().await.unwrap() {
        let metadata = iceberg::spec::TableMetadata::read_from(io, &info.metadata_location).await.unwrap();
        // in a REST catalog the table of epochs also has the writer's
        let writer = metadata.snapshot_for_ref("livelake.writer").map_or(0, |_| 1);
        assert!(metadata.snapshots().len() <= 4 + writer, "{}", info.table);
        reached.insert(files.same(&info.metadata_location));
        reached.extend(metadata.metadata_log().iter().map(|l| files.same(&l.metadata_file)));
        assert!(metadata.metadata_log().len() <= 20);
        for snapshot in metadata.snapshots() {
            reached.insert(files.same(snapshot.manifest_list()));
            for manifest in crate::producer::read_list(io, snapshot, &metadata).await.unwrap() {
                reached.insert(files.same(&manifest.manifest_path));
                let loaded = manifest.load_manifest(io).await.unwrap();
                reached.extend(loaded.entries().iter().filter(|e| e.is_alive()).map(|e| files.same(e.file_path())));
            }
        }
    }
    assert_eq!(all_files(lake).await, reached);
}

#[tokio::test]
async fn manifests_stay_few_and_small_files_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let mut ever = Contents::new();
    for number in 1..=140 {
        // A partition of its own for every epoch: no small files to merge, but a manifest each.
        let row = (Some(i64::try_from(number).unwrap() * DAY), Some("Queens".to_string()), 1);
        let came = Contents::from([(i64::try_from(number).unwrap(), row)]);
        let changes = difference(&Contents::new(), &came);
        let tables = vec![
            change("m.days", "day(seen_at)", SinkMode::Append, changes.clone()),
            change("m.whole", "", SinkMode::Append, changes),
        ];
        ever.extend(came);
        lake.commit(&epoch(number), tables, &[], Arc::new(Rows::default())).await.unwrap();
    }
    for (table, files) in [("m.days", 140), ("m.whole", 16)] {
        assert_eq!(rows_of(&lake, table, &schema()).await, batch(ever.iter()));
        let name = TableName::parse(table);
        let state = Arc::clone(&lake.inner.tables.lock().await[&name]);
        assert!(state.manifests.len() <= 100, "{} manifests", state.manifests.len());
        assert!(state.live().count() <= files, "{} files", state.live().count());
        let info = lake.tables().await.unwrap().into_iter().find(|t| t.table == name).unwrap();
        assert_eq!((info.rows, info.epoch), (Some(140), Some(140)));
    }
    everything_is_reachable(&lake).await;
}

#[tokio::test]
async fn columns_and_partitions_change_along() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let contents = Contents::from([(1, (Some(0), Some("Queens".into()), 5)), (2, (Some(DAY), None, 7))]);
    let first = |mode| change("m.t", "day(seen_at)", mode, difference(&Contents::new(), &contents));
    let mut log = first(SinkMode::Append);
    log.table = TableName::parse("m.log");
    lake.commit(&epoch(1), vec![first(SinkMode::Snapshot), log.clone()], &[], Arc::new(Rows::default())).await.unwrap();

    // One column less and another partitioning: the engine's rows are written anew.
    let narrow = Arc::new(schema().project(&[3, 0]).unwrap());
    let mut next = change("m.t", "", SinkMode::Snapshot, Vec::new());
    next.schema = Arc::clone(&narrow);
    next.partition_by = PartitionBy::parse("bucket(2, id)", &narrow).unwrap();
    lake.commit(&epoch(2), vec![next], &[], Arc::new(Rows(contents.clone()))).await.unwrap();
    let wanted = batch(contents.iter()).project(&[3, 0]).unwrap();
    assert_eq!(rows_of(&lake, "m.t", &narrow).await, wanted);

    // One column more, one wider: the files stay, and rows go by what they read as now.
    let mut fields: Vec<_> = narrow.fields().iter().cloned().collect();
    fields[0] = Arc::new(Field::new("amount", DataType::Decimal128(14, 2), true));
    fields.push(Arc::new(Field::new("tip", DataType::Int64, true)));
    let wide = Arc::new(Schema::new(fields));
    let row = |id: i64, amount: i128, tip: Option<i64>| {
        let amount = Decimal128Array::from_iter_values([amount]).with_precision_and_scale(14, 2).unwrap();
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(amount), Arc::new(Int64Array::from(vec![id])), Arc::new(Int64Array::from(vec![tip]))];
        RecordBatch::try_new(Arc::clone(&wide), columns).unwrap()
    };
    let wanted = WantedTable {
        table: TableName::parse("m.t"),
        schema: Arc::clone(&wide),
        partition_by: PartitionBy::parse("bucket(2, id)", &wide).unwrap(),
        mode: SinkMode::Snapshot,
    };
    let told: Vec<_> = lake.outlook(std::slice::from_ref(&wanted)).await.unwrap().iter().map(ToString::to_string).collect();
    let changes = "table m.t changes: amount decimal(12, 2) → decimal(14, 2), +tip long (rows that are there stay as they are)";
    assert_eq!(told, [changes, "table m.log is written by nothing any more: it stays"]);
    let before: Vec<_> = files_below(&lake.warehouse_path().join("m/t/data")).into_iter().collect();
    let next = TableChange {
        schema: Arc::clone(&wide),
        partition_by: wanted.partition_by.clone(),
        ..change("m.t", "", SinkMode::Snapshot, vec![(row(3, 9, Some(4)), Int64Array::from(vec![1]))])
    };
    lake.commit(&epoch(3), vec![next.clone()], &[], Arc::new(Rows::default())).await.unwrap();
    assert!(before.iter().all(|path| path.exists()), "nothing is written anew");
    assert_eq!(
        rows_of(&lake, "m.t", &wide).await,
        concat_batches(&wide, &[row(1, 5, None), row(2, 7, None), row(3, 9, Some(4))]).unwrap()
    );
    let changes = vec![(row(1, 5, None), Int64Array::from(vec![-1])), (row(1, 5, Some(8)), Int64Array::from(vec![1]))];
    lake.commit(&epoch(4), vec![TableChange { changes, ..next }], &[], Arc::new(Rows::default())).await.unwrap();
    assert_eq!(
        rows_of(&lake, "m.t", &wide).await,
        concat_batches(&wide, &[row(1, 5, Some(8)), row(2, 7, None), row(3, 9, Some(4))]).unwrap()
    );
    assert_eq!(lake.outlook(&[wanted]).await.unwrap().len(), 1);

    // An append table keeps what it has: the old rows have NULL in a new column.
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("tip", DataType::Float64, true)));
    log.schema = Arc::new(Schema::new(fields));
    log.changes.clear();
    lake.commit(&epoch(5), vec![log.clone()], &[], Arc::new(Rows::default())).await.unwrap();
    let read = rows_of(&lake, "m.log", &log.schema).await;
    assert_eq!((read.num_rows(), read.column(4).null_count()), (2, 2));

    // A type that old files cannot be read as is refused there, by name.
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields[0] = Arc::new(Field::new("id", DataType::Utf8, true));
    log.schema = Arc::new(Schema::new(fields));
    let said = lake.commit(&epoch(6), vec![log], &[], Arc::new(Rows::default())).await.unwrap_err().to_string();
    assert!(said.contains("m.log") && said.contains("\"id\""), "{said}");
}
