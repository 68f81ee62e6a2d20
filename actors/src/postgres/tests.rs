//! The real psql, as a child process, against the double; and the extended protocol message by message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use livelake_dataflow::protocol::SubscriptionEvent;

use super::*;
use crate::double::{Double, zone_changes};

async fn start() -> (Arc<Double>, PostgresServing) {
    let lake = Double::new().await;
    let server = serve(Arc::clone(&lake) as _, "127.0.0.1", 0).await.unwrap();
    (lake, server)
}

fn command(server: &PostgresServing) -> Command {
    // psql holds lines back when it writes into a pipe.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "psql", "-X", "-d"]).arg(format!("postgres://anyone@{}/lake", server.address()));
    command
        .env("PGOPTIONS", "")
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Ran {
    out: String,
    err: String,
    ok: bool,
}

/// psql with arguments and something on standard input.
async fn psql(server: &PostgresServing, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(server);
    command.args(arguments);
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("psql is installed");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { out: text(output.stdout), err: text(output.stderr), ok: output.status.success() }
    })
    .await
    .unwrap()
}

/// The unaligned output of one command.
async fn ask(server: &PostgresServing, command: &str) -> String {
    let ran = psql(server, &["-At", "-c", command], "").await;
    assert!(ran.ok && ran.err.is_empty(), "{command}: {}", ran.err);
    ran.out
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_print_as_in_postgres() {
    let (_, server) = start().await;
    let rows = ask(&server, "SELECT id, name, fee, seen_at FROM city.zones ORDER BY id").await;
    assert_eq!(rows, "1|Alpha|10.50|1970-01-01 00:00:00+00\n2|B, \"b\"|-0.05|2021-01-01 00:00:00.5+00\n3|||\n");
    assert_eq!(ask(&server, "SELECT true, 1.5::double, arrow_cast('1 month 2 days 3 hours 4 minutes 5.5 seconds', 'Interval(MonthDayNano)'), [1, NULL]").await, "t|1.5|1 mon 2 days 03:04:05.5|{1,NULL}\n");
    assert_eq!(ask(&server, "CREATE MATERIALIZED VIEW v AS SELECT 1").await, "CREATE MATERIALIZED VIEW\n");
    assert_eq!(ask(&server, "SHOW server_version").await, "16.6\n");
    assert_eq!(ask(&server, "SHOW SINKS").await, "zones\n");
    assert!(ask(&server, "EXPLAIN SELECT 1").await.contains("logical_plan"));
    assert_eq!(ask(&server, "INSERT INTO notes VALUES (1, 'x', NULL, true)").await, "INSERT 0 1\n");
    assert_eq!(ask(&server, "SELECT 1 WHERE false").await, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_run_in_order_until_one_fails() {
    let (lake, server) = start().await;
    let ran = psql(&server, &["-At", "-c", "BEGIN; SET x = 1; SELECT ';' AS \";\"; SELECT nothing; SELECT 2"], "").await;
    assert_eq!(ran.out, "BEGIN\nSET\n;\n");
    assert!(ran.err.contains("ERROR") && !ran.ok, "{}", ran.err);
    assert!(!lake.executed.lock().unwrap().iter().any(|(sql, _)| sql == "SELECT 2"));
    let ran = psql(&server, &["-At"], "SELECT 1;\nSELECT oops;\nSELECT 3;\n").await;
    assert_eq!(ran.out, "1\n3\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_state_message_and_hint() {
    let (_, server) = start().await;
    let ran = psql(&server, &["-v", "VERBOSITY=verbose", "-c", "SELECT * FROM city.nothing"], "").await;
    assert!(ran.err.contains("ERROR:  42P01: "), "{}", ran.err);
    assert!(ran.err.contains("HINT:  look at SHOW VIEWS"), "{}", ran.err);
    let ran = psql(&server, &["-c", "SUBSCRIBE city.zones"], "").await;
    assert!(ran.err.contains("COPY (SUBSCRIBE"), "{}", ran.err);
    let error = serve(Double::new().await, "127.0.0.1", server.address().port()).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backslash_commands_find_everything() {
    let (_, server) = start().await;
    let all = ask(&server, "\\d").await;
    for line in ["city|zones|materialized view|lake", "city|plain|view|lake", "public|notes|table|lake", "public|feed|table|lake"]
    {
        assert!(all.contains(line), "{line} in {all}");
    }
    let tables = ask(&server, "\\dt").await;
    assert!(tables.contains("notes") && !tables.contains("zones"), "{tables}");
    let views = ask(&server, "\\dv").await;
    assert!(views.contains("plain") && !views.contains("zones"), "{views}");
    let materialized = ask(&server, "\\dm").await;
    assert!(materialized.contains("city|zones") && !materialized.contains("plain"), "{materialized}");
    let schemas = ask(&server, "\\dn").await;
    assert!(schemas.contains("city|lake") && schemas.contains("public"), "{schemas}");
    let databases = ask(&server, "\\l").await;
    assert!(databases.contains("lake"), "{databases}");
    let zones = ask(&server, "\\d city.zones").await;
    for line in ["id|bigint||not null|", "name|text|||", "fee|numeric(10,2)|||", "seen_at|timestamp with time zone|||"] {
        assert!(zones.contains(line), "{line} in {zones}");
    }
    let notes = psql(&server, &["-c", "\\d notes"], "").await;
    assert!(
        notes.out.contains("Table \"public.notes\"") && notes.out.contains("timestamp without time zone"),
        "{}{}",
        notes.out,
        notes.err
    );
    let mut refused = Vec::new();
    for command in ["\\d+ city.zones", "\\d+ city.plain", "\\dp", "\\du", "\\df", "\\di", "\\dx", "\\dn+", "\\l+", "\\dt+"] {
        let ran = psql(&server, &["-c", command], "").await;
        if !ran.err.is_empty() && !ran.err.starts_with("Did not find any") {
            refused.push(format!("{command}: {}", ran.err));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let unknown = psql(&server, &["-c", "\\d nothing"], "").await;
    assert!(unknown.err.contains("Did not find any relation named \"nothing\""), "{}{}", unknown.out, unknown.err);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_queries_join_the_lake() {
    let (_, server) = start().await;
    assert_eq!(ask(&server, "SELECT current_database(), current_schema()").await, "lake|public\n");
    assert!(ask(&server, "SELECT version()").await.starts_with("PostgreSQL 16"));
    let tables = "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema IN ('city', 'public') ORDER BY 1, 2";
    assert_eq!(ask(&server, tables).await, "city|plain|VIEW\ncity|zones|VIEW\npublic|feed|BASE TABLE\npublic|notes|BASE TABLE\n");
    let columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'city' AND table_name = 'zones' ORDER BY ordinal_position";
    assert_eq!(ask(&server, columns).await, "id\nname\nfee\nseen_at\n");
    let joined = "SELECT z.id FROM city.zones z JOIN pg_catalog.pg_class c ON c.relname = 'zones' ORDER BY 1 LIMIT 1";
    assert_eq!(ask(&server, joined).await, "1\n");
    let unlike = "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/' ORDER BY 1";
    assert_eq!(ask(&server, unlike).await, "city\ninformation_schema\npublic\n");
    // What SQLAlchemy asks of every column.
    let serial = "SELECT CASE WHEN a.atthasdef THEN pg_get_serial_sequence(CAST(CAST(a.attrelid AS REGCLASS) AS TEXT), a.attname) END \
                  FROM pg_attribute a WHERE a.attname = 'fee' LIMIT 1";
    assert_eq!(ask(&server, serial).await, "\n");
    assert_eq!(ask(&server, "SELECT matviewname FROM pg_matviews").await, "zones\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_out() {
    let (_, server) = start().await;
    let text = ask(&server, "COPY (SELECT id, name, 'a' || chr(9) || 'b\\' FROM city.zones ORDER BY id) TO STDOUT").await;
    assert_eq!(text, "1\tAlpha\ta\\tb\\\\\n2\tB, \"b\"\ta\\tb\\\\\n3\t\\N\ta\\tb\\\\\n");
    let csv = ask(&server, "COPY (SELECT id, name FROM city.zones ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)").await;
    assert_eq!(csv, "id,name\n1,Alpha\n2,\"B, \"\"b\"\"\"\n3,\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_in_whole_or_not_at_all() {
    let (_, server) = start().await;
    let input = "COPY notes FROM STDIN;\n1\ttab\\there\t2021-01-01 10:00:00\tt\n2\t\\N\t\\N\t\\N\n\\.\nSELECT id, note, at, ok FROM notes ORDER BY id;\n";
    let ran = psql(&server, &["-At"], input).await;
    assert_eq!(ran.out, "COPY 2\n1|tab\there|2021-01-01 10:00:00|t\n2|||\n", "{}", ran.err);
    let input = "COPY notes (note, id) FROM STDIN WITH (FORMAT csv, HEADER);\nnote,id\n\"two\nlines, \"\"q\"\"\",3\n\"\",4\n,5\n\\.\nSELECT id, note IS NULL, length(note) FROM notes WHERE id > 2 ORDER BY id;\n";
    let ran = psql(&server, &["-At"], input).await;
    assert_eq!(ran.out, "COPY 3\n3|f|14\n4|f|0\n5|t|\n", "{}", ran.err);
    let ran =
        psql(&server, &["-At"], "COPY notes FROM STDIN;\n6\tx\t\\N\tt\nseven\tx\t\\N\tt\n\\.\nSELECT count(*) FROM notes;\n")
            .await;
    assert!(ran.err.contains("line 2, column id: \"seven\" is no integer"), "{}", ran.err);
    assert_eq!(ran.out, "5\n", "nothing of a failed copy stays");
    let ran = psql(&server, &["-At"], "COPY notes FROM STDIN;\n8\tx\n\\.\nSELECT 1;\n").await;
    assert!(ran.err.contains("line 1: 2 fields where 4 columns are expected"), "{}", ran.err);
    assert_eq!(ran.out, "1\n");
    let ran = psql(&server, &["-At"], "COPY city.zones FROM STDIN;\n").await;
    assert!(ran.err.contains("is not a table"), "{}", ran.err);
    server.stop().await;
}

async fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "it did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn lines(child: &mut Child, count: usize) -> Vec<String> {
    let out = child.stdout.take().unwrap();
    let (out, lines) = tokio::task::spawn_blocking(move || {
        let mut out = BufReader::new(out);
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            lines.push(line.trim_end_matches('\n').to_owned());
        }
        (out.into_inner(), lines)
    })
    .await
    .unwrap();
    child.stdout = Some(out);
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_stream_through_copy_and_can_be_cancelled() {
    let (lake, server) = start().await;
    let mut command = command(&server);
    let mut child = command.args(["-c", "COPY (SUBSCRIBE city.zones) TO STDOUT"]).spawn().unwrap();
    until(|| lake.subscribers("city.zones") == 1).await;
    lake.send("city.zones", &zone_changes(10, 7));
    lake.send("city.zones", &SubscriptionEvent::Progress(11));
    let seen = lines(&mut child, 3).await;
    assert_eq!(
        seen,
        ["10\t-1\tf\t7\told\t1.00\t\\N", "10\t1\tf\t7\tnew\t2.50\t1970-01-01 00:00:00+00", "11\t\\N\tt\t\\N\t\\N\t\\N\t\\N"],
        "each change must arrive before the next is there"
    );
    // psql turns an interrupt into a cancel request.
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    until(|| lake.subscribers("city.zones") == 0).await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("canceling statement due to user request"));
    server.stop().await;
}

/// A connection that speaks the protocol itself, for what psql does not do.
struct Wire(TcpStream);

impl Wire {
    fn connect(server: &PostgresServing) -> Self {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut wire = Self(socket);
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0any\0database\0lake\0\0");
        wire.0.write_all(&[(body.len() as i32 + 4).to_be_bytes().as_slice(), &body].concat()).unwrap();
        wire.until_ready();
        wire
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        self.0.write_all(&[&[kind], (body.len() as i32 + 4).to_be_bytes().as_slice(), body].concat()).unwrap();
    }

    fn receive(&mut self) -> (char, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = i32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (char::from(head[0]), body)
    }

    fn until_ready(&mut self) -> Vec<(char, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let message = self.receive();
            let ready = message.0 == 'Z';
            messages.push(message);
            if ready {
                return messages;
            }
        }
    }

    /// Parse, describe, bind and execute with binary or text formats throughout.
    fn query(&mut self, sql: &str, types: &[i32], parameters: &[Option<&[u8]>], binary: bool) -> Vec<(char, Vec<u8>)> {
        let format = i16::from(binary).to_be_bytes();
        let mut parse = [b"\0", sql.as_bytes(), b"\0", &(types.len() as i16).to_be_bytes()].concat();
        types.iter().for_each(|oid| parse.extend_from_slice(&oid.to_be_bytes()));
        self.send(b'P', &parse);
        self.send(b'D', b"S\0");
        let mut bind = [b"\0\0", 1_i16.to_be_bytes().as_slice(), &format, &(parameters.len() as i16).to_be_bytes()].concat();
        for parameter in parameters {
            match parameter {
                None => bind.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(bytes) => {
                    bind.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    bind.extend_from_slice(bytes);
                }
            }
        }
        bind.extend_from_slice(&1_i16.to_be_bytes());
        bind.extend_from_slice(&format);
        self.send(b'B', &bind);
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
        self.until_ready()
    }
}

/// The fields of the data rows among messages.
fn rows(messages: &[(char, Vec<u8>)]) -> Vec<Vec<Option<Vec<u8>>>> {
    let row = |body: &Vec<u8>| {
        let mut rest = &body[2..];
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            fields.push((length >= 0).then(|| rest[..length as usize].to_vec()));
            rest = &rest[length.max(0) as usize..];
        }
        fields
    };
    messages.iter().filter(|(kind, _)| *kind == 'D').map(|(_, body)| row(body)).collect()
}

fn kinds(messages: &[(char, Vec<u8>)]) -> String {
    messages.iter().map(|(kind, _)| *kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_text_and_binary() {
    let (lake, server) = start().await;
    tokio::task::spawn_blocking(move || {
        let mut wire = Wire::connect(&server);
        let sql = "SELECT id, name, fee, seen_at FROM city.zones WHERE id = $1 AND fee < $2 ORDER BY id";
        let answer = wire.query(sql, &[], &[Some(b"2"), Some(b"3.25")], false);
        assert_eq!(kinds(&answer), "1tT2DCZ", "parsed, described, bound, one row, complete, ready");
        let text = |value: &str| Some(value.as_bytes().to_vec());
        assert_eq!(rows(&answer), [vec![text("2"), text("B, \"b\""), text("-0.05"), text("2021-01-01 00:00:00.5+00")]]);
        // The types that the statement takes: int8, numeric.
        let described = &answer.iter().find(|(kind, _)| *kind == 't').unwrap().1;
        assert_eq!(described[2..], [20_i32.to_be_bytes(), 1700_i32.to_be_bytes()].concat());
        let numeric: Vec<u8> = [2_i16, 0, 0, 2, 3, 2500].iter().flat_map(|word| word.to_be_bytes()).collect();
        let answer = wire.query(sql, &[20, 1700], &[Some(&2_i64.to_be_bytes()), Some(&numeric)], true);
        let minus_five_hundredths: Vec<u8> = [1_i16, -1, 0x4000, 2, 500].iter().flat_map(|word| word.to_be_bytes()).collect();
        let micros = 1_609_459_200_500_000_i64 - 946_684_800_000_000;
        assert_eq!(
            rows(&answer),
            [vec![
                Some(2_i64.to_be_bytes().to_vec()),
                text("B, \"b\""),
                Some(minus_five_hundredths),
                Some(micros.to_be_bytes().to_vec())
            ]]
        );
        // A smaller integer type than the column's, as drivers send it.
        let answer = wire.query("SELECT id FROM city.zones WHERE id = $1", &[23], &[Some(&3_i32.to_be_bytes())], true);
        assert_eq!(rows(&answer), [vec![Some(3_i64.to_be_bytes().to_vec())]]);
        let answer = wire.query("SELECT id FROM city.zones WHERE id = $1", &[], &[None], false);
        assert_eq!(kinds(&answer), "1tT2CZ");
        let answer = wire.query("SELECT id FROM city.zones WHERE id = $1", &[], &[Some(b"two")], false);
        assert!(kinds(&answer).ends_with("EZ"));
        let error = String::from_utf8_lossy(&answer.iter().find(|(kind, _)| *kind == 'E').unwrap().1).into_owned();
        assert!(error.contains("C22P02") && error.contains("parameter $1"), "{error}");
        let answer = wire.query("SELECT id FROM city.zones WHERE id = $1", &[20], &[Some(b"xy")], true);
        assert!(kinds(&answer).ends_with("EZ"), "two bytes are no bigint");
        let answer = wire.query("", &[], &[], false);
        assert_eq!(kinds(&answer), "1tn2IZ");
        let answer = wire.query("SET application_name = 'x'", &[], &[], false);
        assert_eq!(kinds(&answer), "1tn2CZ");
        let answer = wire.query("INSERT INTO notes VALUES ($1, $2, NULL, true)", &[], &[Some(b"9"), Some(b"note")], false);
        assert_eq!(answer.iter().find(|(kind, _)| *kind == 'C').unwrap().1, b"INSERT 0 1\0");
        tokio::runtime::Handle::current().block_on(server.stop());
    })
    .await
    .unwrap();
    assert!(lake.executed.lock().unwrap().iter().any(|(_, parameters)| parameters.len() == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_are_read_in_pieces() {
    let (_, server) = start().await;
    tokio::task::spawn_blocking(move || {
        let mut wire = Wire::connect(&server);
        wire.send(b'Q', b"BEGIN\0");
        assert_eq!(wire.until_ready().last().unwrap().1, b"T");
        wire.send(b'P', b"\0SELECT id FROM city.zones ORDER BY id\0\0\0");
        wire.send(b'B', b"cursor\0\0\0\0\0\0\0\0");
        let execute = |rows: i32| [b"cursor\0".as_slice(), &rows.to_be_bytes()].concat();
        wire.send(b'E', &execute(2));
        wire.send(b'S', b"");
        assert_eq!(kinds(&wire.until_ready()), "12DDsZ");
        wire.send(b'E', &execute(2));
        wire.send(b'S', b"");
        assert_eq!(kinds(&wire.until_ready()), "DCZ");
        wire.send(b'Q', b"COMMIT\0");
        assert_eq!(wire.until_ready().last().unwrap().1, b"I");
        tokio::runtime::Handle::current().block_on(server.stop());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_read_forward() {
    let (_, server) = start().await;
    let script = "BEGIN; DECLARE c CURSOR FOR SELECT id FROM city.zones ORDER BY id; FETCH 2 FROM c; FETCH ALL FROM c; FETCH c; CLOSE c; COMMIT";
    assert_eq!(ask(&server, script).await, "BEGIN\nDECLARE CURSOR\n1\n2\n3\nCLOSE CURSOR\nCOMMIT\n");
    let ran = psql(&server, &["-v", "VERBOSITY=sqlstate", "-c", "FETCH 1 FROM c"], "").await;
    assert!(ran.err.contains("34000"), "{}", ran.err);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn casts_say_a_parameters_type() {
    let (_, server) = start().await;
    tokio::task::spawn_blocking(move || {
        let mut wire = Wire::connect(&server);
        for (sql, parameter, oid, row) in [
            ("SELECT $1::int + 1 AS n", 4_i32.to_be_bytes().to_vec(), 23_i32, 5_i64.to_be_bytes().to_vec()),
            ("SELECT id FROM city.zones ORDER BY id LIMIT $1", 1_i64.to_be_bytes().to_vec(), 20, 1_i64.to_be_bytes().to_vec()),
        ] {
            let answer = wire.query(sql, &[], &[Some(&parameter)], true);
            assert_eq!(kinds(&answer), "1tT2DCZ", "{sql}");
            assert_eq!(answer[1].1[2..], oid.to_be_bytes(), "{sql}");
            assert_eq!(rows(&answer), [vec![Some(row)]], "{sql}");
        }
        tokio::runtime::Handle::current().block_on(server.stop());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_works_in_the_extended_protocol() {
    let (_, server) = start().await;
    tokio::task::spawn_blocking(move || {
        let mut wire = Wire::connect(&server);
        wire.send(b'P', b"\0COPY notes FROM STDIN\0\0\0");
        wire.send(b'B', b"\0\0\0\0\0\0\0\0");
        wire.send(b'E', b"\0\0\0\0\0");
        wire.send(b'S', b"");
        let kinds: String = (0..3).map(|_| wire.receive().0).collect();
        assert_eq!(kinds, "12G");
        wire.send(b'd', b"1\ta\t\\N\tt\n2\tb");
        wire.send(b'd', b"\t\\N\tt\n");
        wire.send(b'c', b"");
        wire.send(b'S', b"");
        let messages = wire.until_ready();
        assert_eq!(messages.iter().find(|(kind, _)| *kind == 'C').unwrap().1, b"COPY 2\0");
        wire.send(b'Q', b"SELECT count(*) FROM notes\0");
        assert_eq!(rows(&wire.until_ready()), [vec![Some(b"2".to_vec())]]);
        tokio::runtime::Handle::current().block_on(server.stop());
    })
    .await
    .unwrap();
}
