//! A commit that fails at any step shows nothing, and goes through when it is tried again.

use super::*;

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), id))).collect()
}

fn tables(before: &Contents, after: &Contents) -> Vec<TableChange> {
    ["f.a", "f.b"].map(|t| change(t, "day(seen_at)", SinkMode::Snapshot, difference(before, after))).to_vec()
}

#[tokio::test]
async fn nothing_shows_after_a_fault_and_the_retry_succeeds() {
    for step in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(&options(folder.path())).await.unwrap();
        let (one, two) = (contents(0..50), contents(20..90));
        lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
        *lake.inner.fault.lock().unwrap() = Some(Fault(step));
        let before = files_below(&lake.warehouse_path());
        let mut changes = tables(&one, &two);
        changes.push(change("f.new", "", SinkMode::Snapshot, difference(&Contents::new(), &two)));
        let error = lake.commit(&epoch(2), changes, &[], Arc::new(Rows(two.clone()))).await.unwrap_err();
        assert_eq!(error.is_unknown(), step == 3, "{error}");
        assert_eq!(files_below(&lake.warehouse_path()) == before, step < 3, "a try that failed for certain leaves no file");
        assert_eq!(lake.warehouse_path().join("f/new").exists(), step == 3);
        let seen = if step == 3 { &two } else { &one };
        for table in ["f.a", "f.b"] {
            assert_eq!(rows_of(&lake, table, &schema()).await, batch(seen.iter()), "step {step}");
        }
        assert_eq!(lake.newest().await.unwrap().unwrap().number, if step == 3 { 2 } else { 1 });

        let report = lake.commit(&epoch(2), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap();
        assert_eq!(report.already, step == 3);
        let three = contents(30..95);
        lake.commit(&epoch(3), tables(&two, &three), &[], Arc::new(Rows(three.clone()))).await.unwrap();
        for table in ["f.a", "f.b"] {
            assert_eq!(rows_of(&lake, table, &schema()).await, batch(three.iter()), "step {step}");
        }
    }
}

#[tokio::test]
async fn a_process_that_dies_before_the_flip_leaves_the_last_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (contents(0..10), contents(5..30));
    {
        let lake = Lake::open(&options(folder.path())).await.unwrap();
        lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
        *lake.inner.fault.lock().unwrap() = Some(Fault(2));
        lake.commit(&epoch(2), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap_err();
    }
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    assert_eq!(lake.newest().await.unwrap().unwrap().positions, epoch(1).positions);
    assert_eq!(rows_of(&lake, "f.a", &schema()).await, batch(one.iter()));
    lake.commit(&epoch(2), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap();
    assert_eq!(rows_of(&lake, "f.b", &schema()).await, batch(two.iter()));
}

#[tokio::test]
async fn a_pointer_that_somebody_moved_stops_the_whole_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let (one, two) = (contents(0..10), contents(5..30));
    lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
    let before = lake.inner.catalog.lock().await.pointers().await.unwrap();
    // A copy of f.b's metadata under another name stands for another program's commit.
    let (name, old) = before.iter().find(|(t, _)| t.name == "b").unwrap().clone();
    let moved = old.replace("/00000-", "/00001-");
    std::fs::copy(local_path(&old), local_path(&moved)).unwrap();
    let record = EpochRecord {
        number: 2,
        timestamp: 2,
        committed_at: 0,
        positions: serde_json::Value::Null,
        token: lake.inner.fence.as_ref().unwrap().token.clone(),
        tables: BTreeMap::new(),
        rows: BTreeMap::new(),
    };
    let metadata = Arc::clone(&lake.state(&name).await.unwrap().metadata);
    let next = |location: &str| Next {
        location: location.to_owned(),
        parent: None,
        metadata: Arc::clone(&metadata),
        updates: Vec::new(),
    };
    let stale = |table: &TableName| Pointer::Move { table: table.clone(), from: "file:///nowhere".into(), next: next(&old) };
    let good = Pointer::Move { table: name.clone(), from: old.clone(), next: next(&moved) };
    let a = TableName::parse("f.a");
    for moves in [vec![stale(&a), good.clone()], vec![good.clone(), stale(&a)]] {
        let error = lake.inner.catalog.lock().await.flip(&record, &moves).await.unwrap_err();
        assert!(matches!(error, SinkError::Conflict { .. }), "{error}");
        assert_eq!(lake.inner.catalog.lock().await.pointers().await.unwrap(), before);
        assert_eq!(lake.newest().await.unwrap().unwrap().number, 1);
    }
    let moving = sqlx::query("UPDATE iceberg_tables SET metadata_location = $1 WHERE table_name = 'b'").bind(&moved);
    let mut catalog = lake.inner.catalog.lock().await;
    let Catalog::Sql(database) = &mut *catalog else { unreachable!("this test's catalog is a database") };
    moving.execute(database.connection().await.unwrap()).await.unwrap();
    database.rest();
    drop(catalog);
    let error = lake.commit(&epoch(3), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap_err();
    assert!(matches!(&error, SinkError::Conflict { table } if *table == name), "{error}");
    assert_eq!(rows_of(&lake, "f.a", &schema()).await, batch(one.iter()));
    // The next try takes the table as it is.
    lake.commit(&epoch(3), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap();
    assert_eq!(rows_of(&lake, "f.b", &schema()).await, batch(two.iter()));
}

#[tokio::test]
async fn epoch_numbers_only_grow() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let none = || Arc::new(Rows::default());
    lake.commit(&epoch(5), Vec::new(), &[], none()).await.unwrap();
    assert!(lake.commit(&epoch(5), Vec::new(), &[], none()).await.unwrap().already);
    let other = Epoch { timestamp: 1, ..epoch(5) };
    for epoch in [other, epoch(4)] {
        let error = lake.commit(&epoch, Vec::new(), &[], none()).await.unwrap_err();
        assert!(matches!(error, SinkError::EpochOrder { newest: 5, .. }), "{error}");
    }
}

#[tokio::test]
async fn one_writer_at_a_time_and_a_superseded_one_writes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    lake.commit(&epoch(1), Vec::new(), &[], Arc::new(Rows::default())).await.unwrap();
    let said = Lake::open(&options(folder.path())).await.unwrap_err().to_string();
    assert!(said.contains(&format!("test (process {})", std::process::id())), "{said}");
    let reader = Lake::open_reader(&options(folder.path())).await.unwrap();
    assert_eq!(reader.newest().await.unwrap().unwrap().number, 1);
    let said = reader.commit(&epoch(2), Vec::new(), &[], Arc::new(Rows::default())).await.unwrap_err().to_string();
    assert!(said.contains("opened for reading"), "{said}");

    // The lock's file is removed under the writer: the token still keeps it out.
    std::fs::remove_file(folder.path().join(".livelake/catalog.db.writer")).unwrap();
    let newer = Lake::open(&LakeOptions { writer: "newer".into(), ..options(folder.path()) }).await.unwrap();
    let error = lake.commit(&epoch(2), Vec::new(), &[], Arc::new(Rows::default())).await.unwrap_err();
    assert!(matches!(&error, SinkError::Superseded { holder } if holder.contains("newer")), "{error}");
    newer.commit(&epoch(2), Vec::new(), &[], Arc::new(Rows::default())).await.unwrap();
    drop((lake, newer));
    Lake::open(&options(folder.path())).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_the_mode_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let one = contents(0..10);
    let try_it = async |changes: Vec<TableChange>, rows: &Contents| {
        lake.commit(&epoch(1), changes, &[], Arc::new(Rows(rows.clone()))).await.unwrap_err().to_string()
    };
    let back = difference(&one, &Contents::new());
    let said = try_it(vec![change("f.a", "", SinkMode::Append, back.clone())], &one).await;
    assert!(said.contains("f.a") && said.contains("changelog"), "{said}");
    let said = try_it(vec![change("f.a", "", SinkMode::Snapshot, back)], &one).await;
    assert!(said.contains("that the relation lost are not in the table"), "{said}");
    let twice = tables(&Contents::new(), &one);
    let said = try_it(vec![twice[0].clone(), twice[0].clone()], &one).await;
    assert!(said.contains("two sinks"), "{said}");
    assert!(lake.tables().await.unwrap().is_empty());

    // Rows go that the table does not have: caught, not written.
    lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
    let gone = tables(&contents(0..11), &contents(5..10));
    let error = lake.commit(&epoch(2), gone, &[], Arc::new(Rows::default())).await.unwrap_err().to_string();
    assert!(error.contains("nothing is written"), "{error}");
    assert_eq!(rows_of(&lake, "f.a", &schema()).await, batch(one.iter()));
}

#[tokio::test]
async fn tables_come_and_go_with_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let one = contents(0..10);
    lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
    let drops = [("f.a", true), ("f.b", false)].map(|(t, purge)| TableDrop { table: TableName::parse(t), purge });
    lake.commit(&epoch(2), Vec::new(), &drops, Arc::new(Rows::default())).await.unwrap();
    let names: Vec<_> = lake.tables().await.unwrap().into_iter().map(|t| t.table.to_string()).collect();
    assert_eq!(names, ["livelake._epochs"]);
    assert!(!folder.path().join(".livelake/warehouse/f/a").exists());
    assert!(folder.path().join(".livelake/warehouse/f/b").exists());
    let two = contents(3..4);
    lake.commit(&epoch(3), tables(&Contents::new(), &two), &[], Arc::new(Rows(two.clone()))).await.unwrap();
    assert_eq!(rows_of(&lake, "f.b", &schema()).await, batch(two.iter()));
}

#[tokio::test]
async fn broken_storage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let said = async |options: &LakeOptions| Lake::open(options).await.unwrap_err().to_string();
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    let file = LakeOptions { warehouse: "file".into(), ..options(folder.path()) };
    assert!(said(&file).await.contains("is a file"));
    std::fs::write(folder.path().join("bad.db"), vec![7u8; 5000]).unwrap();
    let bad = LakeOptions { catalog: "sqlite:bad.db".into(), ..options(folder.path()) };
    let text = said(&bad).await;
    assert!(text.contains("not an SQLite database") && text.contains("bad.db"), "{text}");
    let below = LakeOptions { warehouse: "file/below".into(), ..options(folder.path()) };
    assert!(said(&below).await.contains("cannot make the folder"));
    let none = Lake::open_reader(&LakeOptions::new(folder.path().join("none"))).await.unwrap_err().to_string();
    assert!(none.contains("does not exist"), "{none}");
}

#[tokio::test]
async fn a_commit_that_nobody_waited_for_does_not_disturb_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let (one, two) = (contents(0..10), contents(5..30));
    lake.commit(&epoch(1), tables(&Contents::new(), &one), &[], Arc::new(Rows(one.clone()))).await.unwrap();
    // What a caller that went away leaves: the pointers have moved, the memory of them has not.
    let remembered = lake.inner.tables.lock().await.clone();
    lake.commit(&epoch(2), tables(&one, &two), &[], Arc::new(Rows(two.clone()))).await.unwrap();
    *lake.inner.tables.lock().await = remembered;
    let three = contents(8..31);
    lake.commit(&epoch(3), tables(&two, &three), &[], Arc::new(Rows(three.clone()))).await.unwrap();
    assert_eq!(rows_of(&lake, "f.a", &schema()).await, batch(three.iter()));
}
