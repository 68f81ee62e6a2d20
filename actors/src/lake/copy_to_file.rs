//! `COPY … TO 'file'`: a query's rows at one timestamp, as a file that the lake writes.
//!
//! Whoever may ask may write a file, so all of them go below one folder, `exports` in the lake's. They stream: a batch at a time is in
//! memory, and a reader of rows that is faster than the disk waits.

use std::path::{Component, Path};

use datafusion::common::ScalarValue;
use futures::StreamExt;
use livelake_dataflow::protocol::Timestamp;
use livelake_queries::Position;
use livelake_queries::statement::CopyToFile;
use livelake_sinks::SinkError;
use livelake_sinks::export::{ExportFile, ExportFormat};

use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::service::LakeError;

/// The folder of the files, in the lake's.
const FOLDER: &str = "exports";

/// Batches between the query and the disk.
const BATCHES_WAITING: usize = 2;

fn refused(message: String, hint: &str) -> LakeError {
    LakeError { code: "invalid_sql", sqlstate: "42501", http_status: 400, message, hint: Some(hint.to_owned()) }
}

fn failed(error: SinkError) -> LakeError {
    match error {
        SinkError::Option(message) => refused(message, "write COPY … TO 'name.parquet' or WITH (FORMAT csv)"),
        other => internal(other),
    }
}

impl Lake {
    /// Writes the file; answers the timestamp of the rows and how many they are.
    ///
    /// # Errors
    /// The query's; a name outside of the folder; a file that cannot be written, of which nothing stays then.
    pub(super) async fn copy_to_file(
        &self,
        copy: &CopyToFile,
        position: &Position,
        parameters: Vec<ScalarValue>,
    ) -> Result<(Timestamp, u64), LakeError> {
        let name = Path::new(&copy.file);
        let is_inside = name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_inside || name.file_name().is_none() {
            let hint = format!(
                "files are written below the folder {FOLDER} of the lake; livelake export and psql's \\copy write anywhere"
            );
            return Err(refused(format!("COPY TO '{}': name a file without a leading slash and without ..", copy.file), &hint));
        }
        let path = self.path().join(FOLDER).join(name);
        let format = match &copy.format {
            Some(format) => format.parse().map_err(failed)?,
            None => ExportFormat::of(&path).ok_or_else(|| {
                let message = format!("COPY TO '{}': the name does not say the format", copy.file);
                refused(message, "end it in .parquet, .csv, .json, .ndjson or .arrow, or add WITH (FORMAT parquet)")
            })?,
        };
        let mut answer = self.answer(&copy.query, position, parameters).await?;
        let schema = answer.schema.clone();
        let (send, mut batches) = tokio::sync::mpsc::channel(BATCHES_WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|source| SinkError::File {
                    what: "make the folder",
                    path: folder.to_owned(),
                    source,
                })?;
            }
            let mut file = ExportFile::create(&path, format, &schema)?;
            while let Some(batch) = batches.blocking_recv() {
                match batch {
                    Some(batch) => file.write(&batch)?,
                    // all rows came
                    None => return file.finish().map(Some),
                }
            }
            Ok::<_, SinkError>(None)
        });
        let mut outcome = Ok(());
        while let Some(batch) = answer.rows.next().await {
            match batch {
                Ok(batch) => {
                    if send.send(Some(batch)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            // a writer that stopped says why itself
            let _ = send.send(None).await;
        }
        drop(send);
        let written = writing.await.map_err(internal)?;
        outcome?;
        let rows = written.map_err(failed)?.ok_or_else(|| internal("the writer of the file stopped"))?;
        Ok((answer.as_of, rows))
    }
}
