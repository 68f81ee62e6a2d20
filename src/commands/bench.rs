//! `livelake bench …`: what the published figures are measured with.

mod nexmark;

use super::Failure;

/// Measure this machine.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// The 22 Nexmark queries as SQL text through the whole engine.
    Nexmark(nexmark::Nexmark),
}

impl Bench {
    /// Runs the workload and prints its figures.
    pub fn run(self) -> Result<(), Failure> {
        match self.workload {
            Workload::Nexmark(nexmark) => nexmark.run(),
        }
    }
}
