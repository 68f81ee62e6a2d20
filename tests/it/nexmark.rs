//! The Nexmark queries, maintained over inserts alone, against their batch answers after every tick.

use std::process::Command;

use serde_json::Value;

fn checked(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livelake"));
    command.args(["bench", "nexmark", "--check", "--json"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn all_queries_equal_their_batch_answers_after_every_tick() {
    // half a minute of events: several windows and sessions
    let figures = checked(&["--events", "15000", "--tick", "2500", "--rate", "500", "--workers", "2", "--here"]);
    let compared: Vec<&Value> = figures.iter().filter(|one| !one["differences"].is_null()).collect();
    assert_eq!(compared.len(), 22);
    for one in &compared {
        assert_eq!((&one["differences"], &one["events"]), (&Value::from(0), &Value::from(15000)), "{one}");
        assert!(one["rows"].as_i64() > Some(0), "{one}");
    }
}
