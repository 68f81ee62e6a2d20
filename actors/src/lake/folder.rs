//! A lake's folder: its SQL files applied in the order of their names to an empty catalog.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use livelake_queries::catalog::Catalog;
use livelake_queries::statement::{StatementKind, parse_script};
use livelake_queries::{Position, SqlError, SqlErrorKind};

/// Statements sent at run time, kept beside the tables and applied after the files.
pub const RUNTIME_STATEMENTS: &str = ".livelake/statements.sql";

/// A lake as its files describe it.
#[derive(Clone, Debug)]
pub struct LakeFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What it defines.
    pub catalog: Catalog,
}

impl LakeFolder {
    /// Reads and plans all files. All that is wrong is told, not just the first.
    ///
    /// # Errors
    /// Files that cannot be read, statements that do not parse or plan, each with its place.
    pub fn load(path: &Path) -> Result<LakeFolder, Vec<SqlError>> {
        let mut files = sql_files(path).map_err(|error| vec![error])?;
        let runtime = path.join(RUNTIME_STATEMENTS);
        if runtime.is_file() {
            files.push(runtime);
        }
        if files.is_empty() {
            let message = format!("{} holds no .sql file", path.display());
            return Err(vec![
                SqlError::new(SqlErrorKind::Invalid, Position::default(), message)
                    .with_hint("a lake is a folder of .sql files with CREATE statements: `livelake demo --dir DIR` writes one"),
            ]);
        }
        let mut catalog = Catalog::new();
        let mut errors = Vec::new();
        for file in files {
            let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            let shown = path.join(&name).display().to_string();
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    errors.push(SqlError::new(SqlErrorKind::Invalid, place(&shown), format!("cannot be read: {error}")));
                    continue;
                }
            };
            match parse_script(&text, Some(&shown)) {
                Ok(statements) => {
                    for statement in &statements {
                        let outcome = match &statement.kind {
                            // statements sent at run time may have dropped what the files define
                            StatementKind::Drop(request) if file.ends_with(RUNTIME_STATEMENTS) => {
                                catalog.drop_relation(request, &statement.position).map(drop)
                            }
                            StatementKind::DropFunction(request) if file.ends_with(RUNTIME_STATEMENTS) => {
                                catalog.drop_function(request, &statement.position)
                            }
                            _ => catalog.create(statement).map(drop),
                        };
                        errors.extend(outcome.err());
                    }
                }
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { Ok(LakeFolder { path: path.to_path_buf(), catalog }) } else { Err(errors) }
    }
}

fn place(file: &str) -> Position {
    Position { file: Some(Arc::from(file)), line: 1, column: 1 }
}

fn sql_files(path: &Path) -> Result<Vec<PathBuf>, SqlError> {
    let cannot = |error: std::io::Error| {
        SqlError::new(SqlErrorKind::Invalid, Position::default(), format!("cannot read the folder {}: {error}", path.display()))
            .with_hint("give the folder that holds the lake's .sql files")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.extension().is_some_and(|extension| extension == "sql") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
