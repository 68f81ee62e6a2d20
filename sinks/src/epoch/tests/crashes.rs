//! A process dies at every single place of an epoch and of maintenance, one after the other: what is found then is one of the two epochs, whole,
//! and the lake goes on from it.
//!
//! The process that dies is a real one: this test binary, started again for the one test that does the work.

use std::process::{Command, Output};

use super::*;
use crate::failpoint;
use crate::maintenance::MaintainOptions;

const FOLDER: &str = "LIVELAKE_TEST_CRASH_FOLDER";

fn contents(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), id))).collect()
}

/// What the tables hold at an epoch.
fn states(number: u64) -> Vec<(&'static str, Contents)> {
    let n = i64::try_from(number).unwrap();
    let mut states = vec![("c.days", contents(n..24 + n * 2)), ("c.whole", contents(n * 2..40 + n))];
    if number >= 6 {
        states.push(("c.new", contents(0..n)));
    }
    states
}

fn changes(number: u64) -> Vec<TableChange> {
    let before = if number > 1 { states(number - 1) } else { Vec::new() };
    let of = |name: &str| before.iter().find(|(table, _)| *table == name).map(|(_, rows)| rows.clone()).unwrap_or_default();
    let change = |(name, after): (&str, Contents)| {
        let by = if name == "c.days" { "day(seen_at)" } else { "" };
        TableChange { key: vec![0], ..change(name, by, SinkMode::Snapshot, difference(&of(name), &after)) }
    };
    states(number).into_iter().map(change).collect()
}

async fn open(folder: &Path) -> Lake {
    let files = FileRules { thinned_from_bytes: 0, most_gone: 0.3, small_files: 3, ..FileRules::default() };
    Lake::open(&LakeOptions { files, ..options(folder) }).await.unwrap()
}

async fn commit(lake: &Lake, number: u64) {
    lake.commit(&epoch(number), changes(number), &[], Arc::new(Rows::default())).await.unwrap();
}

fn everything() -> MaintainOptions {
    MaintainOptions { table: None, busy: true, orphans_after: Duration::ZERO }
}

/// What the process does that dies: the sixth epoch, in which files are thinned, merged, made and expired; then maintenance.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let lake = open(Path::new(&folder)).await;
    commit(&lake, 6).await;
    lake.settle().await;
    lake.maintain(&everything()).await.unwrap();
    lake.settle().await;
}

fn run_child(folder: &Path, failpoint: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "epoch::tests::crashes::child", "--nocapture", "--test-threads", "1"]);
    command.env(FOLDER, folder).env(failpoint::VARIABLE, failpoint).output().unwrap()
}

async fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    for number in 1..=5 {
        commit(&lake, number).await;
    }
    lake.settle().await;
    folder
}

async fn check(lake: &Lake, number: u64, place: &str) {
    for (table, rows) in states(number) {
        assert_eq!(rows_of(lake, table, &schema()).await, batch(rows.iter()), "{table} at epoch {number}, {place}");
    }
    let columns = Arc::new(Schema::new(vec![Field::new("epoch", DataType::Int64, true)]));
    let noted = rows_of(lake, "livelake._epochs", &columns).await;
    assert_eq!(noted.column(0).as_ref(), &Int64Array::from_iter_values(1..=number.cast_signed()) as &dyn Array, "{place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_any_place_leaves_one_of_two_epochs() {
    let folder = prepared().await;
    let said = run_child(folder.path(), "#");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let places: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("failpoint ")).collect();
    let mut expected = vec!["file", "catalog-begin", "committed", "sweep", "maintenance-commit"];
    match rest::is_rest() {
        // it writes the metadata, and takes tables together or one by one
        true => expected.push(if rest::takes_turns() { "intent-table" } else { "catalog-commit" }),
        false => expected.extend(["metadata", "catalog-commit"]),
    }
    for expected in expected {
        assert!(places.contains(&expected), "{expected} is not reached: {said}");
    }
    let mut found = [0, 0];
    let stride = match (rest::is_rest(), remote::is_remote()) {
        (true, _) => 3,
        (false, true) => 16,
        (false, false) => 1,
    };
    // the order of files differs a little from run to run, so a few more deaths than places may be tried
    for at in (1..=places.len()).step_by(stride) {
        let folder = prepared().await;
        let died = run_child(folder.path(), &format!("#{at}"));
        let said = String::from_utf8_lossy(&died.stderr).into_owned();
        let place = said.lines().rev().find_map(|line| line.strip_prefix("died at failpoint "));
        let place = format!("death {at} of {} at {}", places.len(), place.unwrap_or("no place"));
        assert!(!died.status.success() || place.ends_with("no place"), "{place}: {said}");
        let lake = open(folder.path()).await;
        let newest = lake.newest().await.unwrap().unwrap().number;
        assert!(newest == 5 || newest == 6, "{place}");
        found[usize::from(newest == 6)] += 1;
        check(&lake, newest, &place).await;
        for number in newest + 1..=8 {
            commit(&lake, number).await;
            check(&lake, number, &place).await;
        }
        lake.settle().await;
        lake.maintain(&everything()).await.unwrap();
        check(&lake, 8, &place).await;
        model::everything_is_reachable(&lake).await;
    }
    assert!(found.iter().all(|found| *found > if stride > 1 { 0 } else { 10 }), "{found:?}");
    println!("{} places, {} left the old epoch, {} the new one", places.len(), found[0], found[1]);
}
