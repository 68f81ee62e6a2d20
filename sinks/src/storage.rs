//! Where a lake's catalog and tables are kept, and how they are named there.

pub(crate) mod catalog;
pub mod fence;

use std::path::{Path, PathBuf};

use crate::error::SinkError;

/// `catalog_name` of every row that we write: part of the interface, because Spark's catalog must bear the same name.
pub const CATALOG_NAME: &str = "iceberg";

/// A table's place in the catalog, shown as `namespace.name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TableName {
    /// The schema in SQL.
    pub namespace: String,
    /// The relation or sink in SQL.
    pub name: String,
}

impl TableName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> TableName {
        TableName { namespace: namespace.into(), name: name.into() }
    }

    /// Reads `namespace.name`; a name without namespace lives in `public`.
    pub fn parse(text: &str) -> TableName {
        match text.split_once('.') {
            Some((namespace, name)) => TableName::new(namespace, name),
            None => TableName::new("public", text),
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// Catalog and warehouse, resolved.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The SQLite file.
    pub catalog: PathBuf,
    /// The folder of the tables, absolute.
    pub warehouse: PathBuf,
}

impl Storage {
    /// Reads the options `storage.catalog` (`sqlite:PATH`) and `storage.warehouse` (a path, or a `file:` URL); relative paths
    /// are below `base`. Touches no file.
    ///
    /// # Errors
    /// A kind of catalog or warehouse that is not supported yet, a path that Iceberg's readers would misread.
    pub fn parse(catalog: &str, warehouse: &str, base: &Path) -> Result<Storage, SinkError> {
        let Some(file) = catalog.strip_prefix("sqlite:") else {
            let kind = catalog.split(':').next().unwrap_or(catalog);
            return Err(match kind {
                "postgres" | "postgresql" | "rest+http" | "rest+https" => {
                    SinkError::NotSupported(format!("a catalog in {kind}: use storage.catalog = 'sqlite:PATH'"))
                }
                _ => SinkError::Option(format!("storage.catalog = '{catalog}': write sqlite:PATH")),
            });
        };
        let file = file.strip_prefix("//").unwrap_or(file);
        if file.is_empty() {
            return Err(SinkError::Option("storage.catalog = 'sqlite:': a path is missing after the colon".into()));
        }
        let folder = match warehouse.split_once("://") {
            Some(("file", path)) => path,
            Some((scheme, _)) => {
                return Err(SinkError::NotSupported(format!(
                    "a warehouse in {scheme}: use a local folder for storage.warehouse"
                )));
            }
            None => warehouse.strip_prefix("file:").unwrap_or(warehouse),
        };
        if folder.contains(['#', '?', '%']) {
            return Err(SinkError::Option(format!(
                "storage.warehouse = '{warehouse}': '#', '?' and '%' mean something in a URL, and readers of the tables would \
                 look for the wrong files; choose another folder"
            )));
        }
        let absolute = |path: &str| -> Result<PathBuf, SinkError> {
            let joined = base.join(path);
            std::path::absolute(&joined).map_err(SinkError::file("find", joined))
        };
        Ok(Storage { catalog: absolute(file)?, warehouse: absolute(folder)? })
    }

    /// Makes the folders that are missing and finds out whether they can be written.
    pub(crate) fn prepare(&self) -> Result<(), SinkError> {
        let parent = self.catalog.parent().unwrap_or(Path::new("/")).to_path_buf();
        for folder in [&parent, &self.warehouse] {
            if folder.exists() && !folder.is_dir() {
                return Err(SinkError::Option(format!(
                    "{} is a file, but the lake keeps a folder there: choose another path in [storage]",
                    folder.display()
                )));
            }
            std::fs::create_dir_all(folder).map_err(SinkError::file("make the folder", folder))?;
        }
        if self.catalog.is_dir() {
            return Err(SinkError::Option(format!(
                "{} is a folder, but storage.catalog names a file: choose another path",
                self.catalog.display()
            )));
        }
        // Better now than at the first commit: a folder that nobody can write is found by writing.
        let probe = self.warehouse.join(format!(".probe-{}", uuid::Uuid::new_v4()));
        std::fs::write(&probe, b"").map_err(SinkError::file("write in", &self.warehouse))?;
        std::fs::remove_file(&probe).map_err(SinkError::file("write in", &self.warehouse))
    }

    /// A new table's location, a `file:///…` URL. A folder that an earlier table of the name left is not used again, so that
    /// its files are never taken for the new table's.
    pub(crate) fn new_location(&self, table: &TableName) -> String {
        let folder = self.warehouse.join(path_part(&table.namespace)).join(path_part(&table.name));
        let folder = match folder.exists() {
            true => {
                folder.with_file_name(format!("{}-{}", path_part(&table.name), &uuid::Uuid::new_v4().simple().to_string()[..8]))
            }
            false => folder,
        };
        format!("file://{}", folder.display())
    }
}

/// A name as one part of a path that every reader's URL parser leaves alone.
fn path_part(name: &str) -> String {
    let part: String =
        name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$') { c } else { '_' }).collect();
    match part.trim_matches('.').is_empty() {
        true => format!("_{part}"),
        false => part,
    }
}

/// The local path of a `file:` location; anything else is returned as it is.
pub(crate) fn local_path(location: &str) -> PathBuf {
    match location.strip_prefix("file://") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(location.strip_prefix("file:").unwrap_or(location)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_paths_or_errors_in_words() {
        let base = Path::new("/lake");
        let storage = Storage::parse("sqlite:.livelake/catalog.db", ".livelake/warehouse", base).unwrap();
        assert_eq!(storage.catalog, Path::new("/lake/.livelake/catalog.db"));
        assert_eq!(storage.warehouse, Path::new("/lake/.livelake/warehouse"));
        assert_eq!(Storage::parse("sqlite:/c.db", "file:///w", base).unwrap().warehouse, Path::new("/w"));
        let said = |catalog, warehouse| Storage::parse(catalog, warehouse, base).unwrap_err().to_string();
        assert!(said("postgres://h/db", "w").starts_with("not supported yet: "));
        assert!(said("rest+http://h", "w").starts_with("not supported yet: "));
        assert!(said("sqlite:c.db", "s3://bucket/w").starts_with("not supported yet: "));
        assert!(said("mysql://h", "w").contains("sqlite:PATH"));
        assert!(said("sqlite:c.db", "a#b").contains("'#'"));
    }

    #[test]
    fn odd_names_make_plain_folders() {
        assert_eq!(path_part("trips$errors"), "trips$errors");
        assert_eq!(path_part("a/b c"), "a_b_c");
        assert_eq!(path_part(".."), "_..");
    }
}
