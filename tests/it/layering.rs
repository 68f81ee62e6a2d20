//! Dependencies between the crates go one way, and heavy libraries have one owner.

use std::collections::BTreeMap;
use std::process::Command;

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter().filter(|one| one["kind"].is_null()).map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), normal(package))).collect()
}

#[test]
fn crates_depend_one_way() {
    let all = dependencies();
    let ours = |name: &str| -> Vec<&str> {
        let mut found: Vec<&str> = all[name].iter().filter_map(|dependency| dependency.strip_prefix("livelake-")).collect();
        found.sort_unstable();
        found
    };
    assert!(ours("livelake-dataflow").is_empty());
    assert_eq!(ours("livelake-queries"), ["dataflow"]);
    assert_eq!(ours("livelake-sinks"), ["dataflow"]);
    assert_eq!(ours("livelake-actors"), ["dataflow", "queries", "sinks"]);
}

#[test]
fn heavy_libraries_have_one_owner() {
    let all = dependencies();
    for (owner, library) in [
        ("livelake-actors", "actix"),
        ("livelake-actors", "actix-web"),
        ("livelake-actors", "pgwire"),
        ("livelake-actors", "rdkafka"),
        ("livelake-sinks", "iceberg"),
        ("livelake-sinks", "sqlx"),
        ("livelake-dataflow", "timely"),
        ("livelake-dataflow", "differential-dataflow"),
    ] {
        for (name, dependencies) in all.iter().filter(|(name, _)| *name != owner && *name != "livelake") {
            assert!(
                !dependencies.iter().any(|dependency| dependency == library),
                "{name} depends on {library}, which is {owner}'s"
            );
        }
    }
    assert!(
        !all["livelake-dataflow"].iter().any(|name| ["tokio", "parquet", "sqlparser", "datafusion"].contains(&name.as_str()))
    );
}
