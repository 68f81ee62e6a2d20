//! Which files there are, and which of them have something to read.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Compression, FilesOptions};
use crate::decode::{DecodeSpec, Format};
use crate::sources::position::Fingerprint;
use crate::sources::{Position, Positions, SourceError};

/// A watched file that has not changed for so long has a last line, even if no line end follows it.
const SETTLED: Duration = Duration::from_secs(2);

/// A file with something to read.
#[derive(Clone, Debug)]
pub(super) struct FileToRead {
    /// Its path as error rows, `_file` and positions show it: relative to the lake's folder where it lies in it.
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Microseconds since 1970.
    pub(super) modified: i64,
    pub(super) fingerprint: Fingerprint,
    /// Where reading goes on.
    pub(super) bytes_done: u64,
    pub(super) rows_done: u64,
    /// Whether what is left without a line end is a line.
    pub(super) ended: bool,
}

impl FileToRead {
    pub(super) fn error(&self, error: std::io::Error) -> SourceError {
        SourceError::Io { path: self.path.display().to_string(), error }
    }

    pub(super) fn malformed(&self, format: &str, reason: impl ToString) -> SourceError {
        SourceError::Malformed { path: self.path.display().to_string(), format: format.into(), reason: reason.to_string() }
    }
}

/// What a look at the folder says.
pub(super) enum Look {
    Files(Vec<FileToRead>),
    Notice(String),
    NothingNew,
    /// No file matches, and none ever did.
    NothingEver,
}

/// What there is to do with a file.
enum Need {
    Nothing,
    Read {
        bytes: u64,
        rows: u64,
    },
    /// It is not the file that was read before; why one can say so.
    Replaced(&'static str),
}

/// See the module.
pub(super) struct Listing {
    pattern: String,
    folder: PathBuf,
    watch: bool,
    compression: Option<Compression>,
    format: Format,
    positions: Positions,
    /// Replaced files that were reported, with their times of change.
    reported: BTreeSet<(String, i64)>,
    /// Replaced files that are to be read again.
    again: BTreeSet<String>,
}

impl Listing {
    pub(super) fn new(options: &FilesOptions, spec: &DecodeSpec, positions: Positions) -> Result<Self, SourceError> {
        let folder = options.folder.display().to_string();
        let pattern = if Path::new(&options.path).is_absolute() {
            options.path.clone()
        } else {
            Path::new(&glob::Pattern::escape(&folder)).join(&options.path).display().to_string()
        };
        glob::Pattern::new(&pattern)
            .map_err(|error| SourceError::Options(format!("path {} is not a glob: {error}", options.path)))?;
        Ok(Listing {
            pattern,
            folder: options.folder.clone(),
            watch: options.watch,
            compression: options.compression,
            format: spec.format,
            positions,
            reported: BTreeSet::new(),
            again: BTreeSet::new(),
        })
    }

    pub(super) fn record(&mut self, name: &str, position: Position) {
        self.again.remove(name);
        self.positions.set(name, position);
    }

    /// Looks for files with something to read, in the order of their names. `upsert`: replaced files are read again.
    pub(super) fn look(&mut self, upsert: bool) -> Result<Look, SourceError> {
        let options =
            glob::MatchOptions { require_literal_separator: true, require_literal_leading_dot: true, case_sensitive: true };
        let paths = glob::glob_with(&self.pattern, options).map_err(|error| SourceError::Options(error.to_string()))?;
        let (mut files, mut any) = (Vec::new(), false);
        for path in paths {
            let path = path.map_err(|error| SourceError::Io { path: error.path().display().to_string(), error: error.into() })?;
            let error = |error| SourceError::Io { path: path.display().to_string(), error };
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
                Err(other) => return Err(error(other)),
            };
            if !metadata.is_file() {
                continue;
            }
            any = true;
            let name: Arc<str> = path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string().into();
            let (size, modified) = (metadata.len(), micros(&metadata));
            let (need, fingerprint) = self.need(&name, &path, size, modified).map_err(error)?;
            let (bytes_done, rows_done) = match need {
                Need::Nothing => continue,
                Need::Read { bytes, rows } => (bytes, rows),
                Need::Replaced(_) if self.again.contains(name.as_ref()) => (0, 0),
                Need::Replaced(why) => {
                    if !self.reported.insert((name.to_string(), modified)) {
                        continue;
                    }
                    if upsert {
                        self.again.insert(name.to_string());
                        return Ok(Look::Notice(format!("{name} {why} since it was read: reading it again from its beginning")));
                    }
                    return Ok(Look::Notice(format!(
                        "{name} {why} since it was read; its rows are not read again, because they would count twice: \
                         give the new content a new name"
                    )));
                }
            };
            let age = SystemTime::now().duration_since(metadata.modified().unwrap_or(UNIX_EPOCH)).unwrap_or_default();
            let ended = !self.watch || age >= SETTLED;
            files.push(FileToRead { name, path, size, modified, fingerprint, bytes_done, rows_done, ended });
        }
        Ok(match (files.is_empty(), any || !self.positions.0.is_empty()) {
            (false, _) => Look::Files(files),
            (true, true) => Look::NothingNew,
            (true, false) => Look::NothingEver,
        })
    }

    fn need(&self, name: &str, path: &Path, size: u64, modified: i64) -> std::io::Result<(Need, Fingerprint)> {
        let Some(Position::File { size: old_size, modified: old_modified, fingerprint, bytes, rows, done }) =
            self.positions.get(name)
        else {
            return Ok((Need::Read { bytes: 0, rows: 0 }, beginning(path, Fingerprint::LENGTH_MAX as u64)?));
        };
        if size == *old_size && modified == *old_modified {
            // Unchanged: nothing, or a line end that still may come, or what was left when the last run stopped.
            let need = if *done || self.waits_for_line_end(path, *bytes, size, modified)? {
                Need::Nothing
            } else {
                Need::Read { bytes: *bytes, rows: *rows }
            };
            return Ok((need, *fingerprint));
        }
        let now = beginning(path, Fingerprint::LENGTH_MAX as u64)?;
        if size < *bytes || size < fingerprint.length {
            return Ok((Need::Replaced("was cut"), now));
        }
        if beginning(path, fingerprint.length)? != *fingerprint {
            return Ok((Need::Replaced("was replaced"), now));
        }
        let compression = self.compression.unwrap_or_else(|| Compression::by_suffix(name));
        let whole = self.format == Format::Parquet || compression != Compression::None;
        Ok((
            match (*done, whole) {
                (true, _) if size == *old_size => Need::Nothing,
                (true, true) => Need::Replaced("was replaced"),
                _ => Need::Read { bytes: *bytes, rows: *rows },
            },
            now,
        ))
    }

    /// Whether all that is left of a file is the beginning of a line whose end is still to come.
    fn waits_for_line_end(&self, path: &Path, bytes: u64, size: u64, modified: i64) -> std::io::Result<bool> {
        let settled = i64::try_from(SETTLED.as_micros()).unwrap_or(i64::MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_sub(modified);
        if !self.watch || self.format == Format::Parquet || age >= settled || bytes == 0 && size > 1 << 20 {
            return Ok(false);
        }
        let mut rest = Vec::new();
        let mut file = File::open(path)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(bytes))?;
        file.take(1 << 20).read_to_end(&mut rest)?;
        Ok(memchr::memchr(b'\n', &rest).is_none())
    }
}

/// The fingerprint over the first bytes of a file.
fn beginning(path: &Path, length: u64) -> std::io::Result<Fingerprint> {
    let mut bytes = Vec::new();
    File::open(path)?.take(length).read_to_end(&mut bytes)?;
    Ok(Fingerprint::of(&bytes))
}

/// When a file was last changed, in microseconds since 1970.
fn micros(metadata: &Metadata) -> i64 {
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    match modified.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}
