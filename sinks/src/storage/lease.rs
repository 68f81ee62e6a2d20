//! Who writes a lake whose catalog is a server and whose tables are in a bucket, where nothing dies with a process: an object that says it,
//! and until when.
//!
//! It is there to be polite: the next writer is told who is at work instead of taking the lake from it. What must not happen is prevented
//! by the catalog.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::files::Files;
use crate::error::SinkError;

/// How long a writer that is not heard of is waited for.
const LASTS: Duration = Duration::from_secs(30);
/// How often it is heard of.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// Leases of this process that are held.
static HELD: LazyLock<Mutex<HashSet<Uuid>>> = LazyLock::new(Mutex::default);

/// The object.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Note {
    id: Uuid,
    holder: String,
    host: String,
    pid: u32,
    until: DateTime<Utc>,
}

/// A lake that is being written; given up when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    id: Uuid,
    renewal: tokio::task::JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Lease {
    /// Notes at a location that this process writes, unless another does; then: who.
    pub(crate) async fn take(files: &Files, location: &str, holder: &str) -> Result<Result<Lease, String>, SinkError> {
        if let Some(other) = read(files, location).await?.filter(Note::is_held) {
            return Ok(Err(format!(
                "{} (until {} unless it is heard of again)",
                other.holder,
                other.until.format("%H:%M:%S UTC")
            )));
        }
        let note =
            Note { id: Uuid::new_v4(), holder: holder.to_owned(), host: host(), pid: std::process::id(), until: Utc::now() };
        note.write(files, location).await?;
        HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(note.id);
        let (id, files, location) = (note.id, files.clone(), location.to_owned());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWED_EVERY).await;
                if let Err(error) = note.write(&files, &location).await {
                    tracing::warn!(%error, "the note of who writes the lake is not renewed");
                }
            }
        });
        Ok(Ok(Lease { id, renewal }))
    }
}

impl Note {
    /// Whether its writer may be at work.
    fn is_held(&self) -> bool {
        if self.until < Utc::now() {
            return false;
        }
        if self.host != host() {
            return true;
        }
        match self.pid == std::process::id() {
            true => HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.id),
            // where processes are not seen the time decides
            false => {
                !std::path::Path::new("/proc/self").exists() || std::path::Path::new(&format!("/proc/{}", self.pid)).exists()
            }
        }
    }

    async fn write(&self, files: &Files, location: &str) -> Result<(), SinkError> {
        let failed = |source| SinkError::Store {
            what: "note who writes the lake",
            location: location.to_owned(),
            source: Box::new(source),
        };
        let text = serde_json::to_vec(&Note { until: Utc::now() + LASTS, ..self.clone() })
            .map_err(|e| failed(iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "not JSON").with_source(e)))?;
        async { files.io.new_output(location)?.write(Bytes::from(text)).await }.await.map_err(failed)
    }
}

/// What is noted; one that cannot be understood was not written by a version that must be waited for.
async fn read(files: &Files, location: &str) -> Result<Option<Note>, SinkError> {
    let failed = |source| SinkError::Store {
        what: "find out who writes the lake",
        location: location.to_owned(),
        source: Box::new(source),
    };
    let bytes = async {
        let input = files.io.new_input(location)?;
        Ok(if input.exists().await? { Some(input.read().await?) } else { None })
    };
    Ok(bytes.await.map_err(failed)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_ends_with_its_writer_or_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (files, location) = (Files::local(), format!("file://{}/writer.json", folder.path().display()));
        let take = || Lease::take(&files, &location, "ann (process 7)");
        let first = take().await.unwrap().unwrap();
        let refused = take().await.unwrap().unwrap_err();
        assert!(refused.starts_with("ann (process 7) (until "), "{refused}");
        drop(first);
        drop(take().await.unwrap().unwrap());

        let note = read(&files, &location).await.unwrap().unwrap();
        let later = Utc::now() + LASTS;
        // on another machine nothing but the time tells
        assert!(Note { host: "elsewhere".into(), until: later, ..note.clone() }.is_held());
        assert!(!Note { host: "elsewhere".into(), until: Utc::now() - LASTS, ..note.clone() }.is_held());
        // here a process that is gone holds nothing
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert!(!Note { pid: gone.id(), until: later, ..note.clone() }.is_held());
        assert!(Note { pid: 1, until: later, ..note }.is_held());
    }
}
