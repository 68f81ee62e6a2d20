//! `livelake export VIEW -o FILE`: a view's rows at one timestamp, as a file.

use std::path::PathBuf;

use livelake_actors::client::{self, OutputFormat};

use super::{Failure, progress, refused};

/// Write all rows of a view, as they are at one timestamp, to a file.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The view's name.
    view: String,
    /// The file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The file's format; by default what its name ends in, else Parquet.
    #[arg(long, value_enum)]
    format: Option<OutputFormat>,
    /// The rows as of this timestamp (microseconds since 1970 UTC).
    #[arg(long, value_name = "T")]
    as_of: Option<u64>,
    /// Where the lake listens.
    #[arg(long, default_value = client::DEFAULT_URL)]
    url: String,
}

impl Export {
    /// Exports.
    pub fn run(self) -> Result<(), Failure> {
        let (bar, mut written) = (progress::written(&self.output), 0);
        let mut progress = |bytes| {
            written = bytes;
            bar.set_position(bytes);
        };
        let as_of = client::export(&self.url, &self.view, &self.output, self.format, self.as_of, &mut progress);
        bar.finish_and_clear();
        let as_of = as_of.map_err(refused)?;
        eprintln!("{} as of {as_of} in {}, {}", self.view, self.output.display(), indicatif::HumanBytes(written));
        Ok(())
    }
}
