//! Writing an answer to a file or to standard output.

use std::io::Write;
use std::path::Path;

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use livelake_actors::service::Answer;

use super::{Failure, running};

/// Writes all rows.
pub async fn write(answer: Answer, format: &str, file: Option<&Path>) -> Result<(), Failure> {
    let schema = answer.schema.clone();
    let rows: Vec<RecordBatch> = answer.rows.try_collect().await?;
    let mut out: Box<dyn Write> = match file {
        Some(path) => {
            let file = std::fs::File::create(path).map_err(|error| running(format!("cannot write {}: {error}", path.display())))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout().lock()),
    };
    match format {
        "csv" => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut out);
            if rows.is_empty() {
                writer.write(&RecordBatch::new_empty(schema)).map_err(running)?;
            }
            for batch in &rows {
                writer.write(batch).map_err(running)?;
            }
        }
        _ => {
            let table = arrow::util::pretty::pretty_format_batches_with_schema(schema, &rows).map_err(running)?;
            writeln!(out, "{table}").map_err(running)?;
        }
    }
    out.flush().map_err(running)
}
