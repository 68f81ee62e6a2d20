//! Every endpoint over a real socket, with a client of the same library as the command line uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::ipc::reader::StreamReader;
use livelake_dataflow::protocol::{EngineError, SubscriptionEvent};
use serde_json::{Value, json};

use super::*;
use crate::double::{AS_OF, Double, zone_changes};

struct Response {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A request as ureq makes it, on a thread of its own.
async fn request(
    method: &'static str,
    url: String,
    headers: &'static [(&'static str, &'static str)],
    body: Option<Vec<u8>>,
) -> Response {
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut builder = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let response = match body {
            Some(body) => agent.run(builder.body(body).unwrap()),
            None => agent.run(builder.body(()).unwrap()),
        };
        let mut response = response.unwrap();
        let headers = format!("{:?}", response.headers());
        let mut body = Vec::new();
        // A body that is cut off is part of some tests.
        let _ = response.body_mut().as_reader().read_to_end(&mut body);
        Response { status: response.status().as_u16(), headers, body }
    })
    .await
    .unwrap()
}

async fn get(server: &HttpServing, path: &str) -> Response {
    request("GET", format!("{}{path}", server.url()), &[], None).await
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn sql(server: &HttpServing, statement: &str) -> Response {
    request("POST", format!("{}/api/v1/sql", server.url()), JSON, Some(json!({ "sql": statement }).to_string().into_bytes()))
        .await
}

async fn start() -> (Arc<Double>, HttpServing) {
    let lake = Double::new().await;
    let server = serve(Arc::clone(&lake) as _, "127.0.0.1", 0).await.unwrap();
    (lake, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_answer_in_the_envelope() {
    let (_, server) = start().await;
    let response = sql(&server, "SELECT id, name, fee, seen_at FROM city.zones ORDER BY id").await;
    assert_eq!(response.status, 200);
    let answer = response.json();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["as_of"], AS_OF);
    assert!(answer["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        answer["data"],
        json!([
            {"id": 1, "name": "Alpha", "fee": 10.50, "seen_at": "1970-01-01T00:00:00Z"},
            {"id": 2, "name": "B, \"b\"", "fee": -0.05, "seen_at": "2021-01-01T00:00:00.5Z"},
            {"id": 3, "name": null, "fee": null, "seen_at": null},
        ])
    );
    assert!(response.text().contains("\"fee\":10.50"), "decimals keep their digits: {}", response.text());
    assert_eq!(answer["columns"][2], json!({"name": "fee", "type": "numeric(10,2)"}));
    let created = sql(&server, "CREATE MATERIALIZED VIEW v AS SELECT 1").await.json();
    assert_eq!((&created["message"], &created["data"]), (&json!("CREATE MATERIALIZED VIEW"), &json!([])));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_follow_the_accept_header() {
    let (_, server) = start().await;
    let url = format!("{}/api/v1/views/city.zones?limit=2", server.url());
    let csv = request("GET", url.clone(), &[("accept", "text/csv")], None).await;
    assert!(csv.headers.contains("text/csv"), "{}", csv.headers);
    assert_eq!(
        csv.text(),
        "id,name,fee,seen_at\n1,Alpha,10.50,1970-01-01T00:00:00Z\n2,\"B, \"\"b\"\"\",-0.05,2021-01-01T00:00:00.5Z\n"
    );
    let lines = request("GET", url.clone(), &[("accept", "application/json;q=0.5, application/x-ndjson")], None).await;
    assert_eq!(lines.text().lines().count(), 2);
    assert!(lines.headers.contains(&AS_OF.to_string()), "the time is in a header: {}", lines.headers);
    let arrow = request("GET", url.clone(), &[("accept", "application/vnd.apache.arrow.stream")], None).await;
    let rows: usize = StreamReader::try_new(arrow.body.as_slice(), None).unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 2);
    let page = request("GET", url.clone(), &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], None).await;
    assert_eq!(page.json()["data"].as_array().unwrap().len(), 2);
    let refused = request("GET", url, &[("accept", "image/png")], None).await;
    assert_eq!((refused.status, &refused.json()["code"]), (406, &json!("not_acceptable")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_is_wrong() {
    let (_, server) = start().await;
    let post = |body: &'static str, headers| {
        request("POST", format!("{}/api/v1/sql", server.url()), headers, Some(body.as_bytes().to_vec()))
    };
    let check = |response: Response, status: u16, code: &str| {
        let answer = response.json();
        assert_eq!((response.status, &answer["code"], &answer["success"]), (status, &json!(code), &json!(false)), "{answer}");
        assert_eq!(answer["http_status"], status);
        answer
    };
    check(post("{\"sql\": ", JSON).await, 400, "invalid_json");
    check(post("{\"query\": \"SELECT 1\"}", JSON).await, 400, "invalid_json");
    check(post("{\"sql\": \"SELECT 1\"}", &[("content-type", "text/plain")]).await, 415, "unsupported_media_type");
    let answer = check(sql(&server, "SELEC 1").await, 400, "invalid_sql");
    assert!(answer["hint"].is_string());
    let answer = check(get(&server, "/api/v1/views/city.zonse").await, 404, "unknown_relation");
    assert_eq!(answer["hint"], "did you mean city.zones?");
    check(get(&server, "/api/v1/views/city.zones?limit=many").await, 400, "invalid_parameter");
    check(get(&server, "/api/v1/nothing").await, 404, "unknown_path");
    check(get(&server, "/api/v1/sql").await, 405, "method_not_allowed");
    check(get(&server, "/api/v1/views/city.zones/subscribe?envelope=odd").await, 400, "invalid_parameter");
    check(get(&server, "/api/v1/views/city.plain/subscribe?envelope=upsert").await, 400, "not_supported");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_refused() {
    let (_, server) = start().await;
    let mut body = b"{\"sql\": \"SELECT '".to_vec();
    body.resize(2 << 20, b'x');
    let response = request("POST", format!("{}/api/v1/sql", server.url()), JSON, Some(body)).await;
    assert_eq!((response.status, &response.json()["code"]), (413, &json!("body_too_large")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_halfway_cuts_the_answer() {
    let (_, server) = start().await;
    let response = sql(&server, "SELECT broken").await;
    assert_eq!(response.status, 200, "rows had been sent before the error");
    assert!(serde_json::from_slice::<Value>(&response.body).is_err(), "a cut answer must not look whole");
    assert!(!response.body.is_empty());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_end_is_given_up() {
    let lake = Double::new().await;
    let options = HttpOptions { query_timeout: Duration::from_millis(50), ..HttpOptions::new("127.0.0.1", 0) };
    let server = serve_with(lake, options).await.unwrap();
    let response = sql(&server, "SELECT forever").await;
    assert_eq!((response.status, &response.json()["code"]), (504, &json!("timeout")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_pages_tell_how_it_goes() {
    let (lake, server) = start().await;
    assert_eq!(get(&server, "/health").await.status, 200);
    lake.healthy.store(false, Ordering::Relaxed);
    let sick = get(&server, "/health").await;
    assert_eq!((sick.status, &sick.json()["data"]["status"]), (503, &json!("failed")));
    assert!(get(&server, "/metrics").await.text().contains("livelake_rows 3"));
    let views = get(&server, "/api/v1/views").await.json();
    assert_eq!(views["data"].as_array().unwrap().len(), 2);
    assert_eq!(views["data"][1]["key"], json!(["id"]));
    assert_eq!(views["data"][1]["columns"][0], json!({"name": "id", "type": "bigint", "nullable": false}));
    assert_eq!(get(&server, "/api/v1/relations").await.json()["data"].as_array().unwrap().len(), 4);
    assert_eq!(get(&server, "/api/v1/sources").await.json()["data"][0]["connector"], "generator");
    assert_eq!(get(&server, "/api/v1/epochs?limit=1").await.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(get(&server, "/api/v1/sinks").await.json()["data"], json!([{"name": "zones"}]));
    assert_eq!(get(&server, "/api/openapi.json").await.json()["openapi"], "3.1.0");
    for page in ["/", "/docs", "/assets/app.js", "/assets/style.css", "/assets/docs.js"] {
        let response = get(&server, page).await;
        assert_eq!(response.status, 200, "{page}");
        for outside in ["http://", "https://", "src=\"//"] {
            let text = response.text().replace("http://127.0.0.1", "").replace("http://www.w3.org", "");
            assert!(!text.contains(outside), "{page} asks the outside world: {outside}");
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let (lake, server) = start().await;
    let port = server.address().port();
    let error = serve(lake, "127.0.0.1", port).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()) && error.to_string().contains("in use"), "{error}");
    server.stop().await.unwrap();
}

/// An open event stream, read line by line.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(server: &HttpServing, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n{headers}\r\n").unwrap();
        Self(BufReader::new(socket))
    }

    /// The next line that begins with `start`, without it; nothing at the end of the stream.
    fn next(&mut self, start: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.trim_end().to_owned());
            }
        }
    }

    fn data(&mut self) -> Value {
        serde_json::from_str(&self.next("data: ").expect("an event")).unwrap()
    }
}

async fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "it did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_events() {
    let (lake, server) = start().await;
    let mut events = Events::open(&server, "/api/v1/views/city.zones/subscribe?as_of=5&snapshot=false", "");
    until(|| lake.subscribers("city.zones") == 1).await;
    let asked = lake.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.0.as_str(), asked.1.as_of, asked.1.no_snapshot), ("city.zones", Some(5), true));
    lake.send("city.zones", &zone_changes(10, 7));
    lake.send("city.zones", &SubscriptionEvent::Progress(11));
    let (events, change, id, progress) = tokio::task::spawn_blocking(move || {
        let change = events.data();
        let id = events.next("id: ");
        let progress = events.data();
        (events, change, id, progress)
    })
    .await
    .unwrap();
    assert_eq!(
        change,
        json!({"as_of": 10, "changes": [
            {"diff": -1, "row": {"id": 7, "name": "old", "fee": 1.00, "seen_at": null}},
            {"diff": 1, "row": {"id": 7, "name": "new", "fee": 2.50, "seen_at": "1970-01-01T00:00:00Z"}},
        ]})
    );
    assert_eq!((id.as_deref(), progress), (Some("10"), json!({"as_of": 11, "progress": true})));
    drop(events);
    // A client that went away is noticed when something is written to it.
    until(|| {
        lake.send("city.zones", &SubscriptionEvent::Progress(12));
        lake.subscribers("city.zones") == 0
    })
    .await;
    let resumed = Events::open(&server, "/api/v1/views/city.zones/subscribe", "last-event-id: 10\r\n");
    until(|| !lake.asked.lock().unwrap().is_empty()).await;
    let asked = lake.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.1.as_of, asked.1.no_snapshot), (Some(10), true));
    drop(resumed);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn upserts_name_the_key_that_went() {
    let (lake, server) = start().await;
    let mut events = Events::open(&server, "/api/v1/views/city.zones/subscribe?envelope=upsert", "");
    until(|| lake.subscribers("city.zones") == 1).await;
    lake.send("city.zones", &zone_changes(10, 7));
    let SubscriptionEvent::Changes(mut gone) = zone_changes(10, 8) else { unreachable!() };
    gone.rows = gone.rows.slice(0, 1);
    gone.diffs = gone.diffs.slice(0, 1);
    lake.send("city.zones", &SubscriptionEvent::Changes(gone));
    lake.send("city.zones", &SubscriptionEvent::Progress(11));
    let message = tokio::task::spawn_blocking(move || events.data()).await.unwrap();
    assert_eq!(
        message,
        json!({"as_of": 10, "changes": [
            {"op": "delete", "row": {"id": 8}},
            {"op": "upsert", "row": {"id": 7, "name": "new", "fee": 2.50, "seen_at": "1970-01-01T00:00:00Z"}},
        ]})
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_is_told_and_cut() {
    let lake = Double::with_buffer(8).await;
    let server = serve(Arc::clone(&lake) as _, "127.0.0.1", 0).await.unwrap();
    let mut events = Events::open(&server, "/api/v1/views/city.zones/subscribe", "");
    until(|| lake.subscribers("city.zones") == 1).await;
    // The client reads nothing: sockets, channel and the lake's buffer fill up, and the subscription is cut.
    let start = Instant::now();
    while lake.subscribers("city.zones") == 1 {
        lake.send("city.zones", &zone_changes(10, 7));
        tokio::task::yield_now().await;
        assert!(start.elapsed() < Duration::from_secs(30), "what waits for a slow client must be bounded");
    }
    let (event, data, end) = tokio::task::spawn_blocking(move || {
        let event = events.next("event: ");
        let data = events.data();
        (event, data, events.next("data: "))
    })
    .await
    .unwrap();
    assert_eq!((event.as_deref(), &data["code"]), (Some("error"), &json!("slow_subscriber")));
    assert!(end.is_none(), "nothing follows the end");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_subscriptions_beat_and_end_with_the_server() {
    let lake = Double::new().await;
    let options = HttpOptions { heartbeat: Duration::from_millis(5), ..HttpOptions::new("127.0.0.1", 0) };
    let server = serve_with(Arc::clone(&lake) as _, options).await.unwrap();
    let mut events = Events::open(&server, "/api/v1/views/city.zones/subscribe", "");
    until(|| lake.subscribers("city.zones") == 1).await;
    let mut events = tokio::task::spawn_blocking(move || {
        assert_eq!(events.next(": ").as_deref(), Some("heartbeat"));
        events
    })
    .await
    .unwrap();
    let start = Instant::now();
    server.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "an open subscription must not hold the stop up");
    let data = tokio::task::spawn_blocking(move || events.data()).await.unwrap();
    assert_eq!(data["code"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_view_ends_its_subscriptions_with_the_reason() {
    let (lake, server) = start().await;
    let mut events = Events::open(&server, "/api/v1/views/city.zones/subscribe", "");
    until(|| lake.subscribers("city.zones") == 1).await;
    lake.send("city.zones", &SubscriptionEvent::End(Some(EngineError::Stopped)));
    let data = tokio::task::spawn_blocking(move || events.data()).await.unwrap();
    assert_eq!(data["code"], "view_failed");
    assert!(data["message"].as_str().unwrap().contains("the engine is stopped"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_statements_stream_lines() {
    let (lake, server) = start().await;
    let url = format!("{}/api/v1/sql", server.url());
    let answer = tokio::spawn(request("POST", url, JSON, Some(br#"{"sql": "SUBSCRIBE city.zones"}"#.to_vec())));
    until(|| lake.subscribers("city.zones") == 1).await;
    lake.send("city.zones", &SubscriptionEvent::Progress(11));
    lake.send("city.zones", &SubscriptionEvent::End(None));
    let answer = answer.await.unwrap();
    assert_eq!(answer.text().trim(), r#"{"as_of":11,"progress":true}"#);
    let unknown = sql(&server, "SUBSCRIBE nothing").await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (400, &json!("unknown_relation")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_statements_send_upserts_when_asked() {
    let (lake, server) = start().await;
    let url = format!("{}/api/v1/sql", server.url());
    let text = br#"{"sql": "SUBSCRIBE city.zones ENVELOPE UPSERT (KEY (id))"}"#;
    let answer = tokio::spawn(request("POST", url, JSON, Some(text.to_vec())));
    until(|| lake.subscribers("city.zones") == 1).await;
    lake.send("city.zones", &zone_changes(10, 2));
    lake.send("city.zones", &SubscriptionEvent::Progress(11));
    lake.send("city.zones", &SubscriptionEvent::End(None));
    let answer = answer.await.unwrap();
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["changes"][0]["op"], &lines[0]["changes"][0]["row"]["name"]), (&json!("upsert"), &json!("new")));
    assert_eq!((lines[0]["changes"].as_array().unwrap().len(), lines.len()), (1, 2));
    server.stop().await.unwrap();
}
