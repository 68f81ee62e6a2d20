//! Commits that fail before, at and after the catalog's transaction; a full disk; a table with an interval of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use livelake_queries::catalog::Relation;
use livelake_sinks::{CommitReport, Lake as Tables, RowReader, SinkError, TableName};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::config::Config;
use crate::lake::folder::LakeFolder;
use crate::lake::store::sink_plans;
use crate::lake::{Lake, RunOptions};
use crate::service::LakeService;

/// What goes wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is written: the disk is full.
    DiskFull,
    /// The epoch is there, but its answer gets lost.
    AnswerLost,
    /// The writer dies within.
    Panic,
    /// The rows of the epoch's time are gone.
    RowsGone,
}

/// The tables, with faults for the next tries in turn, telling of every try.
#[derive(Debug)]
struct Faulty {
    tables: Tables,
    faults: Vec<Fault>,
    tries: AtomicUsize,
    told: UnboundedSender<Epoch>,
}

#[async_trait::async_trait]
impl EpochWriter for Faulty {
    async fn commit(
        &self,
        epoch: &Epoch,
        changes: Vec<TableChange>,
        drops: &[TableDrop],
        rows: Arc<dyn RowReader>,
    ) -> Result<CommitReport, SinkError> {
        let fault = self.faults.get(self.tries.fetch_add(1, Ordering::SeqCst));
        let path = std::path::PathBuf::from("/lake/warehouse");
        let outcome = match fault {
            None => EpochWriter::commit(&self.tables, epoch, changes, drops, rows).await,
            Some(Fault::DiskFull) => Err(SinkError::File { what: "write", path, source: std::io::Error::from_raw_os_error(28) }),
            Some(Fault::AnswerLost) => {
                EpochWriter::commit(&self.tables, epoch, changes, drops, rows).await.unwrap();
                let source = std::io::Error::other("the answer got lost");
                Err(SinkError::File { what: "commit in", path, source })
            }
            Some(Fault::RowsGone) => Err(SinkError::Reader { table: TableName::new("a", "b"), source: "no longer kept".into() }),
            Some(Fault::Panic) => {
                self.told.send(epoch.clone()).unwrap();
                panic!("the writer's hand slipped")
            }
        };
        self.told.send(epoch.clone()).unwrap();
        outcome
    }
}

/// A lake with a table and a view over it, both in Iceberg, and a driver whose commits fail as said.
struct Bench {
    lake: Lake,
    tables: Tables,
    driver: Addr<SinkDriver>,
    failure: Arc<Mutex<Option<String>>>,
    epochs: EpochList,
    tries: UnboundedReceiver<Epoch>,
    _folder: tempfile::TempDir,
}

const SQL: &str = "
    CREATE TABLE shop.items (id BIGINT PRIMARY KEY, price BIGINT NOT NULL);
    CREATE MATERIALIZED VIEW shop.total AS SELECT count(*) AS items, sum(price) AS price FROM shop.items;
    CREATE SINK shop.total_sink FROM shop.total WITH (connector = 'iceberg', table = 'shop.total');";

async fn bench(sql: &str, interval: Duration, faults: &[Fault]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lake.sql"), sql).unwrap();
    let config = Config::load(folder.path(), &Vec::new, &["engine.workers=1".to_owned()]).unwrap();
    let lake_folder = LakeFolder::load(folder.path()).unwrap();
    let options = RunOptions { once: false, asked_for: Vec::new() };
    let lake = Lake::build(lake_folder, &config, options, 0, AllPositions::new()).unwrap();
    let definitions = lake.definitions();
    let plans = sink_plans(&definitions.catalog, &definitions.stored, &|_: &Relation| true).unwrap();
    let store = Store::open(folder.path(), &config).await.unwrap();
    let (told, tries) = unbounded_channel();
    let tables = store.tables.clone();
    let writer = Faulty { tables: tables.clone(), faults: faults.to_vec(), tries: AtomicUsize::new(0), told };
    let epochs = EpochList::default();
    let settings = (&Epochs { interval, ..config.epochs.clone() }, &config.maintenance);
    let mut driver =
        SinkDriver::new(lake.engine().clone(), lake.clock().clone(), store, plans, &[], settings, Arc::clone(&epochs)).unwrap();
    Arc::get_mut(&mut driver.state).unwrap().get_mut().writer = Arc::new(writer);
    let failure = driver.failure();
    lake.set_ready().await.unwrap();
    let driver = driver.start();
    driver.send(BeginEpochs).await.unwrap();
    Bench { lake, tables, driver, failure, epochs, tries, _folder: folder }
}

impl Bench {
    async fn insert(&self, id: i64) {
        self.lake.execute(&format!("INSERT INTO shop.items VALUES ({id}, {})", id * 10), Vec::new()).await.unwrap();
    }

    async fn commit(&self) -> Result<Option<u64>, LakeError> {
        self.driver.send(CommitNow { all: false }).await.unwrap()
    }

    /// The rows of a table of whole numbers, in order.
    async fn rows(&self, table: &str) -> Vec<Vec<i64>> {
        let (send, mut receive) = mpsc::channel(64);
        let name = TableName::parse(table);
        let schema = self.tables.tables().await.unwrap().into_iter().find(|info| info.table == name).unwrap().schema;
        self.tables.read(&name, schema, send).await.unwrap();
        let mut rows = Vec::new();
        while let Some(batch) = receive.recv().await {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .filter(|column| column.data_type().is_numeric())
                .map(|column| arrow::compute::cast(column, &DataType::Int64).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let value = |column: &arrow::array::ArrayRef| {
                    use arrow::array::AsArray;
                    column.as_primitive::<arrow::datatypes::Int64Type>().value(row)
                };
                rows.push(columns.iter().map(value).collect());
            }
        }
        rows.sort();
        rows
    }

    async fn next_try(&mut self) -> (u64, Timestamp, serde_json::Value) {
        let epoch = tokio::time::timeout(Duration::from_secs(60), self.tries.recv()).await.unwrap().unwrap();
        (epoch.number, epoch.timestamp, epoch.positions)
    }

    fn said(&self) -> Option<String> {
        self.failure.lock().unwrap().clone()
    }

    fn committed(&self) -> Vec<u64> {
        self.epochs.lock().unwrap().iter().map(|epoch| epoch.epoch).collect()
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[actix::test]
async fn a_view_without_rows_has_a_table() {
    let sql = "
        CREATE TABLE shop.items (id BIGINT PRIMARY KEY, price BIGINT NOT NULL);
        CREATE MATERIALIZED VIEW shop.dear AS SELECT id, price FROM shop.items WHERE price > 1000;
        CREATE SINK shop.dear_sink FROM shop.dear WITH (connector = 'iceberg', table = 'shop.dear');";
    let bench = bench(sql, NEVER, &[]).await;
    bench.insert(1).await;
    assert_eq!(bench.commit().await.unwrap(), Some(1));
    assert!(bench.rows("shop.dear").await.is_empty());
    assert_eq!(bench.commit().await.unwrap(), None, "it is made once");
    bench.insert(200).await;
    assert_eq!(bench.commit().await.unwrap(), Some(2));
    assert_eq!(bench.rows("shop.dear").await, [[200, 2000]]);
}

#[actix::test]
async fn an_epoch_whose_answer_got_lost_is_found_and_the_next_one_follows() {
    let mut bench = bench(SQL, NEVER, &[Fault::AnswerLost, Fault::DiskFull]).await;
    bench.insert(1).await;
    assert!(bench.commit().await.unwrap_err().message.contains("the answer got lost"));
    bench.insert(2).await;
    // The second try does not even reach the tables, the third finds the epoch there.
    assert!(bench.commit().await.unwrap_err().message.contains("the disk is full"));
    assert!(bench.said().unwrap().contains("the disk is full"));
    assert_eq!(bench.commit().await.unwrap(), Some(2));
    assert_eq!(bench.said(), None);
    let tries = [bench.next_try().await, bench.next_try().await, bench.next_try().await, bench.next_try().await];
    assert_eq!(tries[0], tries[1], "the same epoch is sent again");
    assert_eq!(tries[1], tries[2]);
    assert_eq!((tries[3].0, tries[3].1 > tries[2].1), (2, true));
    assert_eq!(bench.committed(), [2, 1]);
    let found = bench.epochs.lock().unwrap()[1].clone();
    assert_eq!(found.as_of, tries[0].1);
    assert!(found.tables.iter().any(|(table, snapshot)| table == "shop.total" && *snapshot > 0), "{found:?}");
    assert_eq!(bench.rows("shop.total").await, [[2, 30]]);
    assert_eq!(bench.rows("_base.shop__items").await, [[1, 10], [2, 20]]);
    assert_eq!(bench.commit().await.unwrap(), None);
}

#[actix::test]
async fn an_epoch_that_failed_before_the_transaction_goes_through_as_it_was() {
    let mut bench = bench(SQL, NEVER, &[Fault::DiskFull]).await;
    bench.insert(1).await;
    bench.commit().await.unwrap_err();
    bench.insert(2).await;
    assert_eq!(bench.commit().await.unwrap(), Some(2));
    let (first, second) = (bench.next_try().await, bench.next_try().await);
    assert_eq!(first, second);
    assert_eq!(bench.committed(), [2, 1]);
    assert_eq!(bench.rows("shop.total").await, [[2, 30]]);
}

#[actix::test]
async fn a_full_disk_is_said_and_waited_for_while_views_answer() {
    let mut bench = bench(SQL, Duration::from_millis(20), &[Fault::DiskFull; 3]).await;
    bench.insert(1).await;
    let first = bench.next_try().await;
    assert_eq!((bench.next_try().await, bench.next_try().await), (first.clone(), first.clone()));
    assert!(bench.said().unwrap().contains("the disk is full"), "{:?}", bench.said());
    let answer = bench.lake.execute("SELECT price FROM shop.total", Vec::new()).await.unwrap();
    let rows: Vec<_> = futures::TryStreamExt::try_collect(answer.rows).await.unwrap();
    assert_eq!(rows.iter().map(arrow::record_batch::RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(bench.next_try().await, first, "the same epoch goes through once there is space");
    bench.commit().await.unwrap();
    assert_eq!(bench.said(), None);
    assert_eq!(bench.rows("shop.total").await, [[1, 10]]);
}

#[actix::test]
async fn a_panic_is_shown_and_tried_again() {
    let mut bench = bench(SQL, NEVER, &[Fault::Panic]).await;
    bench.insert(1).await;
    let said = bench.commit().await.unwrap_err().message;
    assert!(said.contains("the writer's hand slipped"), "{said}");
    assert!(bench.said().unwrap().contains("hand slipped"));
    assert_eq!(bench.commit().await.unwrap(), Some(1));
    assert_eq!(bench.next_try().await, bench.next_try().await);
    assert_eq!(bench.rows("shop.total").await, [[1, 10]]);
}

#[actix::test]
async fn an_epoch_that_can_never_be_is_cut_anew() {
    let mut bench = bench(SQL, NEVER, &[Fault::DiskFull, Fault::RowsGone]).await;
    bench.insert(1).await;
    bench.commit().await.unwrap_err();
    bench.insert(2).await;
    assert_eq!(bench.commit().await.unwrap(), Some(1));
    let tries = [bench.next_try().await, bench.next_try().await, bench.next_try().await];
    assert_eq!(tries[0], tries[1]);
    assert_eq!((tries[2].0, tries[2].1 > tries[1].1), (1, true));
    assert_eq!(bench.rows("shop.total").await, [[2, 30]]);
}

#[actix::test]
async fn a_changelog_that_is_taken_up_again_gets_only_what_changed_meanwhile() {
    let sql = SQL.replace("table = 'shop.total'", "table = 'shop.total', mode = 'changelog'");
    let bench = bench(&sql, NEVER, &[]).await;
    bench.insert(1).await;
    assert_eq!(bench.commit().await.unwrap(), Some(1));
    bench.insert(2).await;
    assert_eq!(bench.commit().await.unwrap(), Some(2));
    let definitions = bench.lake.definitions();
    let plans = sink_plans(&definitions.catalog, &definitions.stored, &|_: &Relation| true).unwrap();
    let plan = plans.into_iter().find(|plan| plan.mode == SinkMode::Changelog).unwrap();
    let table = plan.table.to_string();
    let again = async |changed: bool| {
        bench.driver.send(ChangeSinks::RemoveTable(table.clone())).await.unwrap().unwrap();
        if changed {
            bench.insert(3).await;
        }
        bench.driver.send(ChangeSinks::Add(plan.clone())).await.unwrap().unwrap();
        bench.commit().await.unwrap()
    };
    assert_eq!(again(false).await, None, "nothing changed meanwhile");
    assert_eq!(again(true).await, Some(3));
    let rows: Vec<Vec<i64>> = bench.rows("shop.total").await.into_iter().map(|row| row[..2].to_vec()).collect();
    assert_eq!(rows, [[1, 10], [1, 10], [2, 30], [2, 30], [3, 60]], "each came once, and two went");
}

#[actix::test]
async fn a_table_with_an_interval_of_its_own_is_written_when_that_is_over() {
    let sql = SQL.replace("table = 'shop.total'", "table = 'shop.total', every = '1h'");
    let bench = bench(&sql, Duration::from_secs(60), &[]).await;
    bench.insert(1).await;
    assert_eq!(bench.commit().await.unwrap(), Some(1));
    bench.insert(2).await;
    assert_eq!(bench.commit().await.unwrap(), Some(2));
    assert_eq!(bench.rows("_base.shop__items").await, [[1, 10], [2, 20]]);
    assert_eq!(bench.rows("shop.total").await, [[1, 10]], "not due yet");
    assert_eq!(bench.driver.send(CommitNow { all: true }).await.unwrap().unwrap(), Some(3));
    assert_eq!(bench.rows("shop.total").await, [[2, 30]]);
}
