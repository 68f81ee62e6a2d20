//! The command line's client against the real server over the double.

use std::sync::Arc;
use std::time::{Duration, Instant};

use livelake_dataflow::protocol::SubscriptionEvent;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::double::{AS_OF, Double, zone_changes};
use crate::http;

async fn start() -> (Arc<Double>, http::HttpServing, String) {
    let lake = Double::new().await;
    let server = http::serve(Arc::clone(&lake) as _, "127.0.0.1", 0).await.unwrap();
    let url = server.url();
    (lake, server, url)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn text(url: &str, statement: &str, format: OutputFormat) -> Result<String, ClientError> {
    let mut out = Vec::new();
    sql(url, statement, format, &mut out).map(|()| String::from_utf8(out).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_printed_in_every_format() {
    let (_, server, url) = start().await;
    blocking(move || {
        let query = "SELECT id, name, fee FROM city.zones ORDER BY id";
        let table = text(&url, query, OutputFormat::Table).unwrap();
        assert_eq!(
            table,
            " id | name   | fee\n----+--------+-------\n  1 | Alpha  | 10.50\n  2 | B, \"b\" | -0.05\n  3 |        |\n(3 rows)\n"
        );
        assert_eq!(text(&url, query, OutputFormat::Csv).unwrap().lines().next(), Some("id,name,fee"));
        assert_eq!(
            text(&url, query, OutputFormat::Ndjson).unwrap().lines().next(),
            Some("{\"id\":1,\"name\":\"Alpha\",\"fee\":10.50}")
        );
        assert!(text(&url, query, OutputFormat::Json).unwrap().starts_with("{\"success\":true"));
        assert_eq!(
            text(&url, "CREATE VIEW v AS SELECT 1; SELECT 1 AS one", OutputFormat::Table).unwrap().lines().next(),
            Some("CREATE MATERIALIZED VIEW")
        );
    })
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_the_lake_said() {
    let (_, server, url) = start().await;
    let refused = url.clone();
    let error = blocking(move || text(&refused, "SELEC 1", OutputFormat::Table).unwrap_err()).await;
    assert!(matches!(&error, ClientError::Refused { status: 400, code, .. } if code == "invalid_sql"), "{error:?}");
    assert!(error.to_string().contains("hint: look at SHOW VIEWS"), "{error}");
    let broken = url.clone();
    let error = blocking(move || text(&broken, "SELECT broken", OutputFormat::Ndjson).unwrap_err()).await;
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
    server.stop().await.unwrap();
    let error = blocking(move || text(&url, "SELECT 1", OutputFormat::Table).unwrap_err()).await;
    assert!(error.to_string().contains("no lake answers at http://127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_whole_files() {
    let (_, server, url) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zones.parquet");
    let (file, from) = (path.clone(), url.clone());
    let told = blocking(move || {
        let mut told = Vec::new();
        export(&from, "city.zones", &file, None, None, &mut |bytes| told.push(bytes)).map(|as_of| (as_of, told))
    });
    let (as_of, told) = told.await.unwrap();
    assert_eq!((as_of, told.last()), (AS_OF, Some(&std::fs::metadata(&path).unwrap().len())));
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
    let file = folder.path().join("nothing.csv");
    let error = blocking(move || export(&url, "city.nothing", &file, None, None, &mut |_| {})).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { status: 404, .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no half file stays");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_followed_to_their_end() {
    let (lake, server, url) = start().await;
    let follower = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        subscribe(&url, "city.zones", OutputFormat::Table, Some(3), true, &mut out).map(|()| String::from_utf8(out).unwrap())
    });
    let start = Instant::now();
    while lake.subscribers("city.zones") == 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(matches!(lake.asked.lock().unwrap().last(), Some((_, options)) if options.as_of == Some(3) && options.no_snapshot));
    lake.send("city.zones", &zone_changes(10, 7));
    lake.send("city.zones", &SubscriptionEvent::End(None));
    let printed = follower.await.unwrap().unwrap();
    assert_eq!(
        printed,
        "as_of\tdiff\tid\tname\tfee\tseen_at\n10\t-1\t7\told\t1.00\t\n10\t+1\t7\tnew\t2.50\t1970-01-01T00:00:00Z\n"
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_reads_until_a_semicolon() {
    let (_, server, url) = start().await;
    blocking(move || {
        let input = "SELECT\n  1 AS one\n;\nSELEC;\nSELECT ';' AS two; SELECT 3 AS three;\n\\nonsense\n\\q\nSELECT 4;\n";
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        prompt::run(&url, OutputFormat::Csv, false, &mut input.as_bytes(), &mut out, &mut errors).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one\n1\ntwo\n;\nthree\n3\n");
        let errors = String::from_utf8(errors).unwrap();
        assert_eq!(errors.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{errors}");
        assert!(errors.contains("\\nonsense"), "{errors}");
    })
    .await;
    server.stop().await.unwrap();
}
