//! A lake run by the real binary, for the tests beside it: `LIVELAKE_BIN`, or what `cargo build --release` left in the target folder.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A lake without relations on free ports; killed when it goes out of scope.
#[derive(Debug)]
pub struct Lake {
    child: Child,
    _folder: tempfile::TempDir,
    /// Where PostgreSQL's protocol is spoken.
    pub url: String,
}

fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("LIVELAKE_BIN") {
        return binary.into();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("release/livelake")
}

impl Lake {
    /// Starts it and waits for its address. It may not be ready to answer yet.
    ///
    /// # Panics
    /// If there is no binary, or it ends before it says its address.
    pub fn start() -> Lake {
        let folder = tempfile::tempdir().expect("a folder for the lake");
        std::fs::write(folder.path().join("lake.sql"), "CREATE VIEW ready AS SELECT 1 AS one;").expect("the lake's file");
        let mut command = Command::new(binary());
        command.arg("run").arg(folder.path()).env("RUST_LOG", "warn").stdout(Stdio::piped());
        for setting in ["http.port=0", "postgres.port=0", "epochs.interval=20ms", "engine.workers=1"] {
            command.args(["--set", setting]);
        }
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}: run cargo build --release first", binary().display()));
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("postgres ").map(str::to_owned)).expect("it says its address");
        // nobody reads on, but a closed pipe would end it
        std::thread::spawn(move || lines.for_each(drop));
        Lake { child, _folder: folder, url }
    }
}

impl Drop for Lake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
