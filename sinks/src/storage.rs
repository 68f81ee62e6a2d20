//! Where a lake's catalog and tables are kept, and how they are named there.

mod bucket;
pub(crate) mod catalog;
pub mod fence;
pub(crate) mod files;
mod lease;
pub(crate) mod parquet_file;
pub mod place;

use std::path::{Path, PathBuf};

use url::Url;

use self::files::{Files, local_path};
use self::place::{CatalogPlace, SqlPlace};
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
    /// The database of the metadata pointers.
    pub catalog: CatalogPlace,
    /// Where the tables are: `file:///…` or `s3://bucket/…`, without a slash at its end.
    pub warehouse: String,
    pub(crate) files: Files,
}

impl Storage {
    /// Reads the options `storage.catalog` (`sqlite:PATH`, `postgres://…`, `rest+https://…`) and `storage.warehouse` (a path, a `file:` URL, `s3://…`);
    /// relative paths are below `base`. Touches no file.
    ///
    /// # Errors
    /// A kind of catalog or warehouse that is not supported, a path that Iceberg's readers would misread.
    pub fn parse(catalog: &str, warehouse: &str, base: &Path) -> Result<Storage, SinkError> {
        let absolute = |path: &str| -> Result<PathBuf, SinkError> {
            let joined = base.join(path);
            std::path::absolute(&joined).map_err(SinkError::file("find", joined))
        };
        let catalog = match catalog.split_once(':') {
            Some(("sqlite", file)) => match file.strip_prefix("//").unwrap_or(file) {
                "" => {
                    return Err(SinkError::Option("storage.catalog = 'sqlite:': a path is missing after the colon".into()));
                }
                file => CatalogPlace::Sql(SqlPlace::Sqlite(absolute(file)?)),
            },
            Some(("postgres" | "postgresql", _)) => {
                // what does not parse may hold a password: it is not shown
                let url = Url::parse(catalog)
                    .map_err(|e| SinkError::Option(format!("storage.catalog: {e}; write postgres://user@host:port/database")))?;
                CatalogPlace::Sql(SqlPlace::Postgres(url))
            }
            Some(("rest+http" | "rest+https", _)) => {
                let url = Url::parse(catalog.trim_start_matches("rest+"))
                    .map_err(|e| SinkError::Option(format!("storage.catalog: {e}; write rest+https://host:port/path")))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(SinkError::Option(
                        "storage.catalog: a REST catalog's address holds no user and no password: LIVELAKE_CATALOG_TOKEN or \
                         LIVELAKE_CATALOG_CREDENTIAL give them"
                            .into(),
                    ));
                }
                CatalogPlace::Rest(url)
            }
            _ => {
                let message =
                    "storage.catalog: write sqlite:PATH, postgres://user@host:port/database or rest+https://host:port/path";
                return Err(SinkError::Option(message.to_owned()));
            }
        };
        if warehouse.contains(['#', '?', '%']) {
            return Err(SinkError::Option(format!(
                "storage.warehouse = '{warehouse}': '#', '?' and '%' mean something in a URL, and readers of the tables would \
                 look for the wrong files; choose another folder"
            )));
        }
        let (warehouse, files) = match warehouse.split_once("://") {
            Some(("s3" | "s3a", place)) => {
                let place = place.trim_end_matches('/');
                let bucket = place.split('/').next().unwrap_or_default();
                if bucket.is_empty() {
                    return Err(SinkError::Option(format!("storage.warehouse = '{warehouse}': write s3://bucket/folder")));
                }
                (format!("s3://{place}"), Files::bucket(bucket)?)
            }
            Some((scheme, _)) if scheme != "file" => {
                return Err(SinkError::NotSupported(format!(
                    "a warehouse in {scheme}: use a local folder or s3://bucket/folder for storage.warehouse"
                )));
            }
            _ => (format!("file://{}", absolute(&local_path(warehouse).to_string_lossy())?.display()), Files::local()),
        };
        Ok(Storage { catalog, warehouse, files })
    }

    /// Whether the catalog makes the tables' metadata files, and deletes them.
    pub(crate) fn is_metadata_the_catalogs(&self) -> bool {
        matches!(self.catalog, CatalogPlace::Rest(_))
    }

    /// Makes the folders that are missing and finds out whether they can be written.
    pub(crate) async fn prepare(&self) -> Result<(), SinkError> {
        let mut folders = Vec::new();
        if let Some(file) = self.catalog.file() {
            folders.push(file.parent().unwrap_or(Path::new("/")).to_path_buf());
        }
        if self.files.is_local() {
            folders.push(local_path(&self.warehouse));
        }
        for folder in &folders {
            if folder.exists() && !folder.is_dir() {
                return Err(SinkError::Option(format!(
                    "{} is a file, but the lake keeps a folder there: choose another path in [storage]",
                    folder.display()
                )));
            }
            std::fs::create_dir_all(folder).map_err(SinkError::file("make the folder", folder))?;
        }
        if let Some(file) = self.catalog.file()
            && file.is_dir()
        {
            return Err(SinkError::Option(format!(
                "{} is a folder, but storage.catalog names a file: choose another path",
                file.display()
            )));
        }
        // Better now than at the first commit: a place that nobody can write is found by writing.
        self.files.probe(&self.warehouse).await
    }

    /// A new table's location. A folder that an earlier table of the name left is not used again, so that its files are never taken for
    /// the new table's.
    ///
    /// # Errors
    /// The warehouse cannot be looked at.
    pub(crate) async fn new_location(&self, table: &TableName) -> Result<String, SinkError> {
        let folder = format!("{}/{}/{}", self.warehouse, path_part(&table.namespace), path_part(&table.name));
        Ok(match self.files.is_free(&folder).await? {
            true => folder,
            false => format!("{folder}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_paths_or_errors_in_words() {
        let base = Path::new("/lake");
        let storage = Storage::parse("sqlite:.livelake/catalog.db", ".livelake/warehouse", base).unwrap();
        assert_eq!(storage.catalog.file(), Some(Path::new("/lake/.livelake/catalog.db")));
        assert_eq!(storage.warehouse, "file:///lake/.livelake/warehouse");
        assert_eq!(Storage::parse("sqlite:/c.db", "file:///w", base).unwrap().warehouse, "file:///w");
        let remote = Storage::parse("postgres://ann:secret@db:5433/lake?sslmode=require", "s3://bucket/lake/", base).unwrap();
        assert_eq!(remote.warehouse, "s3://bucket/lake");
        assert_eq!(remote.catalog.to_string(), "postgres://ann@db:5433/lake", "a password is not shown");
        assert!(!format!("{remote:?}").contains("secret"));
        let said = |catalog, warehouse| Storage::parse(catalog, warehouse, base).unwrap_err().to_string();
        let rest = Storage::parse("rest+https://lake.example/catalog?warehouse=w", "s3://bucket/lake", base).unwrap();
        assert_eq!(rest.catalog.to_string(), "rest+https://lake.example/catalog");
        assert!(said("rest+http://ann:secret@h", "w").contains("LIVELAKE_CATALOG_TOKEN"));
        assert!(!said("rest+http://ann:secret@h:port", "w").contains("secret"));
        assert!(said("sqlite:c.db", "gs://bucket/w").starts_with("not supported yet: "));
        assert!(said("sqlite:c.db", "s3://").contains("s3://bucket/folder"));
        assert!(said("mysql://h", "w").contains("sqlite:PATH"));
        assert!(!said("postgres://ann:secret@db:port/x", "w").contains("secret"));
        assert!(said("sqlite:c.db", "a#b").contains("'#'"));
    }

    #[test]
    fn odd_names_make_plain_folders() {
        assert_eq!(path_part("trips$errors"), "trips$errors");
        assert_eq!(path_part("a/b c"), "a_b_c");
        assert_eq!(path_part(".."), "_..");
    }
}
