//! The catalog tables that list the lake's relations. Object ids are hashes of names: the same in every query, session and run.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int16Array, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::error::DataFusionError;

use super::super::rows::{pg_type, type_modifier, type_size};
use super::DATABASE;
use crate::service::{LakeService, RelationKind};

/// The first object id that is not PostgreSQL's own.
const FIRST_OID: u32 = 16_384;
/// `pg_catalog`'s id in every PostgreSQL.
const SYSTEM_SCHEMA_OID: i32 = 11;
/// The bootstrap superuser's id in every PostgreSQL.
const OWNER_OID: i32 = 10;

/// An object's id: a hash of what it is and its name (FNV-1a), above PostgreSQL's own and below the sign.
pub(super) fn oid(class: &str, name: &str) -> i32 {
    let hash = class
        .bytes()
        .chain([0])
        .chain(name.bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (FIRST_OID + hash % (i32::MAX as u32 - FIRST_OID)) as i32
}

fn schema_oid(schema: &str) -> i32 {
    if schema == "pg_catalog" { SYSTEM_SCHEMA_OID } else { oid("schema", schema) }
}

/// The lake's schemas; `public` is always one.
pub(super) fn schemas(service: &dyn LakeService) -> Vec<String> {
    let mut names = BTreeSet::from(["public".to_owned()]);
    names.extend(service.relations().iter().map(|relation| relation.parts().0.to_owned()));
    names.into_iter().collect()
}

fn kind(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Source | RelationKind::Table | RelationKind::Errors => "r",
        RelationKind::View => "v",
        RelationKind::MaterializedView => "m",
    }
}

/// The type of access lists and options: PostgreSQL's `text[]`.
fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// Columns of a table being made.
struct Columns {
    rows: usize,
    columns: Vec<(&'static str, ArrayRef)>,
}

impl Columns {
    fn new(rows: usize) -> Self {
        Self { rows, columns: Vec::new() }
    }

    fn text<'a>(mut self, name: &'static str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.columns.push((name, Arc::new(StringArray::from_iter_values(values))));
        self
    }

    fn int(mut self, name: &'static str, values: impl IntoIterator<Item = i32>) -> Self {
        self.columns.push((name, Arc::new(Int32Array::from_iter_values(values))));
        self
    }

    fn short(mut self, name: &'static str, values: impl IntoIterator<Item = i16>) -> Self {
        self.columns.push((name, Arc::new(Int16Array::from_iter_values(values))));
        self
    }

    fn float(mut self, name: &'static str, values: impl IntoIterator<Item = f64>) -> Self {
        self.columns.push((name, Arc::new(Float64Array::from_iter_values(values))));
        self
    }

    fn bools(mut self, name: &'static str, values: impl IntoIterator<Item = bool>) -> Self {
        self.columns.push((name, Arc::new(values.into_iter().map(Some).collect::<BooleanArray>())));
        self
    }

    fn same_text(self, name: &'static str, value: &str) -> Self {
        let rows = self.rows;
        self.text(name, std::iter::repeat_n(value, rows))
    }

    fn same_int(self, name: &'static str, value: i32) -> Self {
        let rows = self.rows;
        self.int(name, std::iter::repeat_n(value, rows))
    }

    fn same_short(self, name: &'static str, value: i16) -> Self {
        let rows = self.rows;
        self.short(name, std::iter::repeat_n(value, rows))
    }

    fn same_bool(self, name: &'static str, value: bool) -> Self {
        let rows = self.rows;
        self.bools(name, std::iter::repeat_n(value, rows))
    }

    fn null(mut self, name: &'static str, data_type: &DataType) -> Self {
        self.columns.push((name, new_null_array(data_type, self.rows)));
        self
    }

    fn table(self) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let batch =
            RecordBatch::try_from_iter_with_nullable(self.columns.into_iter().map(|(name, column)| (name, column, true)))?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }
}

/// A catalog table by name, if it is one that lists relations.
pub(super) fn table(name: &str, service: &dyn LakeService) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    match name {
        "pg_namespace" => pg_namespace(service),
        "pg_class" => pg_class(service),
        "pg_attribute" => pg_attribute(service),
        "pg_database" => pg_database(),
        "pg_roles" => pg_roles(),
        "pg_tables" => {
            listing(service, "tablename", "tableowner", &[RelationKind::Source, RelationKind::Table, RelationKind::Errors])
        }
        "pg_views" => listing(service, "viewname", "viewowner", &[RelationKind::View]),
        "pg_matviews" => listing(service, "matviewname", "matviewowner", &[RelationKind::MaterializedView]),
        _ => Ok(None),
    }
}

fn pg_namespace(service: &dyn LakeService) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let mut names = schemas(service);
    names.extend(["information_schema".to_owned(), "pg_catalog".to_owned()]);
    Columns::new(names.len())
        .int("oid", names.iter().map(|name| schema_oid(name)))
        .text("nspname", names.iter().map(String::as_str))
        .same_int("nspowner", OWNER_OID)
        .null("nspacl", &text_list())
        .null("options", &DataType::Utf8)
        .table()
}

fn pg_class(service: &dyn LakeService) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let relations = service.relations();
    let oids = || relations.iter().map(|relation| oid("relation", &relation.full_name()));
    Columns::new(relations.len())
        .int("oid", oids())
        .text("relname", relations.iter().map(|relation| relation.parts().1))
        .int("relnamespace", relations.iter().map(|relation| schema_oid(relation.parts().0)))
        .same_int("reltype", 0)
        .same_int("reloftype", 0)
        .same_int("relowner", OWNER_OID)
        .same_int("relam", 0)
        .int("relfilenode", oids())
        .same_int("reltablespace", 0)
        .same_int("relpages", 0)
        .float("reltuples", relations.iter().map(|relation| relation.rows.map_or(-1.0, |rows| rows as f64)))
        .same_int("relallvisible", 0)
        .same_int("reltoastrelid", 0)
        .same_bool("relhasindex", false)
        .same_bool("relisshared", false)
        .same_text("relpersistence", "p")
        .text("relkind", relations.iter().map(|relation| kind(relation.kind)))
        .short("relnatts", relations.iter().map(|relation| i16::try_from(relation.schema.fields().len()).unwrap_or(i16::MAX)))
        .same_short("relchecks", 0)
        .same_bool("relhasrules", false)
        .same_bool("relhastriggers", false)
        .same_bool("relhassubclass", false)
        .same_bool("relrowsecurity", false)
        .same_bool("relforcerowsecurity", false)
        .bools("relispopulated", relations.iter().map(|relation| relation.failure.is_none()))
        .same_text("relreplident", "d")
        .same_bool("relispartition", false)
        .same_int("relrewrite", 0)
        .same_int("relfrozenxid", 0)
        .same_int("relminmxid", 0)
        .null("reloptions", &text_list())
        .null("relacl", &text_list())
        .null("relpartbound", &DataType::Utf8)
        .table()
}

fn pg_attribute(service: &dyn LakeService) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let relations = service.relations();
    let columns: Vec<_> = relations
        .iter()
        .flat_map(|relation| relation.schema.fields().iter().enumerate().map(move |(index, field)| (relation, index, field)))
        .collect();
    let types: Vec<_> = columns.iter().map(|(_, _, field)| pg_type(field.data_type())).collect();
    Columns::new(columns.len())
        .int("attrelid", columns.iter().map(|(relation, _, _)| oid("relation", &relation.full_name())))
        .text("attname", columns.iter().map(|(_, _, field)| field.name().as_str()))
        .int("atttypid", types.iter().map(|pg_type| i32::try_from(pg_type.oid()).unwrap_or(0)))
        .same_int("attstattarget", -1)
        .short("attlen", types.iter().map(type_size))
        .short("attnum", columns.iter().map(|(_, index, _)| i16::try_from(index + 1).unwrap_or(i16::MAX)))
        .same_int("attndims", 0)
        .same_int("attcacheoff", -1)
        .int("atttypmod", columns.iter().map(|(_, _, field)| type_modifier(field.data_type())))
        .bools("attbyval", types.iter().map(|pg_type| (1..=8).contains(&type_size(pg_type))))
        .same_text("attalign", "i")
        .same_text("attstorage", "p")
        .same_text("attcompression", "")
        .bools("attnotnull", columns.iter().map(|(_, _, field)| !field.is_nullable()))
        .same_bool("atthasdef", false)
        .same_bool("atthasmissing", false)
        .same_text("attidentity", "")
        .same_text("attgenerated", "")
        .same_bool("attisdropped", false)
        .same_bool("attislocal", true)
        .same_int("attinhcount", 0)
        .same_int("attcollation", 0)
        .null("attacl", &text_list())
        .null("attoptions", &text_list())
        .null("attfdwoptions", &text_list())
        .null("attmissingval", &DataType::Utf8)
        .table()
}

fn pg_database() -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    Columns::new(1)
        .int("oid", [oid("database", DATABASE)])
        .text("datname", [DATABASE])
        .same_int("datdba", OWNER_OID)
        .same_int("encoding", 6)
        .same_text("datlocprovider", "c")
        .same_text("datcollate", "C.UTF-8")
        .same_text("datctype", "C.UTF-8")
        .same_bool("datistemplate", false)
        .same_bool("datallowconn", true)
        .same_int("datconnlimit", -1)
        .same_int("datlastsysoid", 0)
        .same_int("datfrozenxid", 0)
        .same_int("datminmxid", 0)
        .same_int("dattablespace", 1663)
        .null("daticulocale", &DataType::Utf8)
        .null("daticurules", &DataType::Utf8)
        .null("datcollversion", &DataType::Utf8)
        .null("datacl", &text_list())
        .table()
}

fn pg_roles() -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    Columns::new(1)
        .same_int("oid", OWNER_OID)
        .same_text("rolname", DATABASE)
        .same_bool("rolsuper", true)
        .same_bool("rolinherit", true)
        .same_bool("rolcreaterole", false)
        .same_bool("rolcreatedb", false)
        .same_bool("rolcanlogin", true)
        .same_bool("rolreplication", false)
        .same_bool("rolbypassrls", true)
        .same_int("rolconnlimit", -1)
        .null("rolpassword", &DataType::Utf8)
        .null("rolvaliduntil", &DataType::Utf8)
        .null("rolconfig", &DataType::Utf8)
        .table()
}

/// `pg_tables`, `pg_views` and `pg_matviews`: columns of all three under the names of one.
fn listing(
    service: &dyn LakeService,
    name: &'static str,
    owner: &'static str,
    kinds: &[RelationKind],
) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let mut relations = service.relations();
    relations.retain(|relation| kinds.contains(&relation.kind));
    let columns = Columns::new(relations.len())
        .text("schemaname", relations.iter().map(|relation| relation.parts().0))
        .text(name, relations.iter().map(|relation| relation.parts().1))
        .same_text(owner, DATABASE);
    let columns = match name {
        "tablename" => columns
            .null("tablespace", &DataType::Utf8)
            .same_bool("hasindex", false)
            .same_bool("hasrules", false)
            .same_bool("hastriggers", false)
            .same_bool("rowsecurity", false),
        "matviewname" => columns
            .null("tablespace", &DataType::Utf8)
            .same_bool("hasindexes", false)
            .bools("ispopulated", relations.iter().map(|relation| relation.failure.is_none()))
            .text("definition", relations.iter().map(|relation| relation.sql.as_str())),
        _ => columns.text("definition", relations.iter().map(|relation| relation.sql.as_str())),
    };
    columns.table()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_are_stable_and_apart() {
        assert_eq!(oid("relation", "city.zones"), oid("relation", "city.zones"));
        assert_ne!(oid("relation", "city.zones"), oid("relation", "city.zone"));
        assert_ne!(oid("relation", "a"), oid("schema", "a"));
        assert!((0..10_000).all(|index| oid("relation", &index.to_string()) >= FIRST_OID as i32));
    }
}
