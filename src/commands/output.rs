//! Writing an answer to a file or to standard output.

use std::path::Path;

use arrow::array::RecordBatch;
use clap::ValueEnum;
use futures::StreamExt;
use livelake_actors::client::OutputFormat;
use livelake_actors::service::Answer;
use livelake_sinks::export::{Export, ExportFile, ExportFormat};

use super::{Failure, running};

/// Writes all rows as they come. A file appears under its name only when it is whole.
pub async fn write(answer: Answer, format: &str, file: Option<&Path>) -> Result<(), Failure> {
    let format: ExportFormat = format.parse().map_err(running)?;
    let mut rows = answer.rows;
    match file {
        Some(path) => {
            let mut file = ExportFile::create(path, format, &answer.schema).map_err(running)?;
            while let Some(batch) = rows.next().await {
                file.write(&batch?).map_err(running)?;
            }
            file.finish().map_err(running)?;
        }
        None => {
            let mut out = Export::new(std::io::stdout(), format, &answer.schema).map_err(running)?;
            while let Some(batch) = rows.next().await {
                out.write(&batch?).map_err(running)?;
            }
            out.finish().map_err(running)?;
        }
    }
    Ok(())
}

/// Writes rows that are there to standard output.
pub fn print(rows: &RecordBatch, format: OutputFormat) -> Result<(), Failure> {
    let name = format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let format: ExportFormat = name.parse().map_err(running)?;
    let mut out = Export::new(std::io::stdout(), format, &rows.schema()).map_err(running)?;
    out.write(rows).map_err(running)?;
    out.finish().map_err(running)?;
    Ok(())
}

/// Whether a lake is named by its URL, not by its folder.
pub fn is_url(lake: &str) -> bool {
    lake.starts_with("http://") || lake.starts_with("https://")
}
