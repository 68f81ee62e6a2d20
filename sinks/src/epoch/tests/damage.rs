//! Files that were cut short, changed or deleted by somebody: an error in words that names the file, never a panic and never a wrong table.

use super::*;

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), id))).collect()
}

/// A lake with one table that has a delete file, and the paths of its files by what they are.
async fn damaged(folder: &Path, harm: impl Fn(&Path)) -> (Contents, PathBuf) {
    let files = FileRules { thinned_from_bytes: 0, most_gone: 0.9, ..FileRules::default() };
    let lake = Lake::open(&LakeOptions { files, ..options(folder) }).await.unwrap();
    let (one, two) = (contents(0..40), contents(3..50));
    let step = |before: &Contents, after: &Contents| {
        vec![TableChange { key: vec![0], ..change("d.t", "", SinkMode::Snapshot, difference(before, after)) }]
    };
    lake.commit(&epoch(1), step(&Contents::new(), &one), &[], Arc::new(Rows::default())).await.unwrap();
    lake.commit(&epoch(2), step(&one, &two), &[], Arc::new(Rows::default())).await.unwrap();
    lake.settle().await;
    let table = lake.warehouse_path().join("d/t");
    drop(lake);
    harm(&table);
    (two, table)
}

/// The newest file of a folder whose name ends so.
fn newest(folder: &Path, suffix: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter(|path| path.to_string_lossy().ends_with(suffix));
    named.max_by_key(|path| (std::fs::metadata(path).unwrap().modified().unwrap(), path.clone())).unwrap()
}

fn cut_in_half(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// What reading says, and what a commit that has to look at the files says.
async fn said(folder: &Path, rows: &Contents) -> [String; 2] {
    let lake = Lake::open(&options(folder)).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1);
    let name = TableName::parse("d.t");
    let read = lake.read(&name, schema(), sender);
    let drain = async { while receiver.recv().await.is_some() {} };
    let read = tokio::join!(read, drain).0.unwrap_err().to_string();
    let before = files_below(&lake.warehouse_path());
    let back = vec![TableChange { key: vec![0], ..change("d.t", "", SinkMode::Snapshot, difference(rows, &Contents::new())) }];
    let commit = lake.commit(&epoch(3), back, &[], Arc::new(Rows::default())).await.unwrap_err().to_string();
    assert_eq!(files_below(&lake.warehouse_path()), before, "a try that failed leaves no files");
    assert_eq!(lake.newest().await.unwrap().unwrap().number, 2);
    [read, commit]
}

#[tokio::test]
async fn what_is_broken_is_named() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm, &str); 8] = [
        ("a data file cut short", |table| cut_in_half(&newest(&table.join("data"), "-00001.parquet")), ".parquet"),
        (
            "a data file that is gone",
            |table| std::fs::remove_file(newest(&table.join("data"), "-00001.parquet")).unwrap(),
            ".parquet",
        ),
        ("a delete file cut short", |table| cut_in_half(&newest(&table.join("data"), "-deletes.parquet")), "-deletes.parquet"),
        (
            "a delete file that is gone",
            |table| std::fs::remove_file(newest(&table.join("data"), "-deletes.parquet")).unwrap(),
            "-deletes.parquet",
        ),
        ("a manifest cut short", |table| cut_in_half(&newest(&table.join("metadata"), "-m0.avro")), "d.t"),
        ("a manifest that is gone", |table| std::fs::remove_file(newest(&table.join("metadata"), "-m0.avro")).unwrap(), "d.t"),
        ("metadata cut short", |table| cut_in_half(&newest(&table.join("metadata"), ".metadata.json")), "d.t"),
        (
            "metadata that is gone",
            |table| std::fs::remove_file(newest(&table.join("metadata"), ".metadata.json")).unwrap(),
            "d.t",
        ),
    ];
    for (what, harm, named) in harms {
        let folder = tempfile::tempdir().unwrap();
        let (rows, _) = damaged(folder.path(), harm).await;
        for words in said(folder.path(), &rows).await {
            assert!(words.contains(named) && words.contains("cannot"), "{what}: {words}");
        }
    }
}

#[tokio::test]
async fn a_table_goes_on_when_its_files_are_back() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.parquet");
    let away = kept.clone();
    let (rows, table) = damaged(folder.path(), move |table| {
        std::fs::rename(newest(&table.join("data"), "-00001.parquet"), &away).unwrap();
    })
    .await;
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let gone = contents(45..50);
    let after: Contents = rows.iter().filter(|(id, _)| !gone.contains_key(*id)).map(|(id, row)| (*id, row.clone())).collect();
    let step = || vec![TableChange { key: vec![0], ..change("d.t", "", SinkMode::Snapshot, difference(&rows, &after)) }];
    let error = lake.commit(&epoch(3), step(), &[], Arc::new(Rows::default())).await.unwrap_err().to_string();
    assert!(error.contains(".parquet"), "{error}");
    let name =
        error.split('/').find(|part| part.contains("-00001.parquet")).unwrap().split([':', ' ']).next().unwrap().to_owned();
    std::fs::rename(&kept, table.join("data").join(name)).unwrap();
    lake.commit(&epoch(3), step(), &[], Arc::new(Rows::default())).await.unwrap();
    assert_eq!(rows_of(&lake, "d.t", &schema()).await, batch(after.iter()));
}
