//! What the documentation shows is what the program takes: its SQL plans, and its commands' statements are answered.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::LakeDir;

/// The documentation's files.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("docs")];
    let mut files = vec![root.join("README.md"), root.join("examples/tlc/README.md")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The blocks of one language, with the place where each begins.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut open: Option<(bool, String, String)> = None;
        for (line, text) in text.lines().enumerate() {
            match (&mut open, text.strip_prefix("```")) {
                (None, Some(fence)) => {
                    open = Some((fence == language, format!("{}:{}", file.display(), line + 1), String::new()));
                }
                (Some((is_wanted, place, block)), Some(_)) => {
                    if *is_wanted {
                        found.push((std::mem::take(place), std::mem::take(block)));
                    }
                    open = None;
                }
                (Some((_, _, block)), None) => *block += &format!("{text}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", file.display());
    }
    found
}

/// Statements in the documentation's commands, with their places: those of `psql -c`, of `livelake sql` and of requests.
pub fn statements() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (place, block) in blocks("sh") {
        for (before, after) in [("-c '", "'"), ("livelake sql '", "'"), ("{\"sql\": \"", "\"}")] {
            for rest in block.split(before).skip(1) {
                found.push((place.clone(), rest.split_once(after).unwrap().0.to_owned()));
            }
        }
    }
    for (place, block) in blocks("sql") {
        if block.trim_start().starts_with("SELECT") {
            found.push((place, block));
        }
    }
    assert!(found.len() >= 7, "{found:?}");
    found
}

#[test]
fn the_lakes_that_the_documentation_shows_are_planned() {
    let mut lakes = 0;
    for (place, block) in blocks("sql") {
        if block.trim_start().starts_with("SELECT") {
            continue;
        }
        let lake = LakeDir::new(&[("10_shown.sql", &block)]);
        let output = lake.run(&["check"]);
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
        lakes += 1;
    }
    assert!(lakes >= 4, "{lakes}");
}

#[test]
fn the_quick_starts_lake_gives_an_answer() {
    let lake = LakeDir::new(&[]);
    let (_, sql) = blocks("sql").into_iter().find(|(_, block)| block.contains("my_lake/10_orders.sql")).unwrap();
    let (_, data) = blocks("sh").into_iter().find(|(_, block)| block.contains("mkdir -p my_lake")).unwrap();
    let made = Command::new("sh").args(["-e", "-c", &data]).current_dir(lake.path()).status().unwrap();
    assert!(made.success());
    std::fs::write(lake.path().join("10_orders.sql"), sql).unwrap();
    std::fs::rename(lake.path().join("my_lake/orders"), lake.path().join("orders")).unwrap();
    lake.expect(&["check"]);
    let answer = lake.expect(&["run", "--once", "--query", "SELECT * FROM revenue", "--format", "csv"]);
    assert_eq!(answer, "customer,orders,revenue\n7,2,14.75\n");
    assert_eq!(lake.expect(&["verify"]), "revenue: 1 rows, 0 differ\n");
}
