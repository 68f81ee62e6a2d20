//! A progress line for long reads and long files, on a terminal only.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use livelake_actors::lake::Lake;

/// A line that goes on by itself until it is finished.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

/// Shows how much the lake has read; nothing where standard error is no terminal.
pub fn show(lake: &Lake) -> Progress {
    let bar = ProgressBar::new_spinner();
    // the template is a constant; were it wrong, the plain spinner does as well
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
        bar.set_style(style);
    }
    let (shown, lake) = (bar.clone(), lake.clone());
    let task = tokio::spawn(async move {
        loop {
            let (inputs, bytes) = lake.inputs();
            shown.set_message(format!("{inputs} rows, {} read", indicatif::HumanBytes(bytes)));
            shown.tick();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    Progress { bar, task }
}

/// Shows how large a file has got, and how fast; its position is the bytes so far.
pub fn written(file: &Path) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // the template is a constant; were it wrong, the plain spinner does as well
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}: {bytes}, {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar.set_message(file.display().to_string());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

impl Progress {
    /// Takes the line away.
    pub fn finish(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
