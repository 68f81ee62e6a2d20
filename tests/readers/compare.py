"""Reads tables of a lake with pyiceberg and with DuckDB and compares them with what the writer says it wrote.

usage: compare.py CATALOG_DB EXPECTED_JSON

EXPECTED_JSON: {"epoch": 7, "tables": {"namespace.table": {"rows": 12, "sums": {"column": 34}, "columns": ["a", "b"]}}}
Leaves with 3 and a line per difference when anything differs, with 0 otherwise.
"""

import decimal
import json
import pathlib
import sqlite3
import sys

import duckdb
import duckdb_extension_avro
import duckdb_extension_iceberg
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def open_duckdb():
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for module, name in ((duckdb_extension_avro, "avro"), (duckdb_extension_iceberg, "iceberg")):
        folder = pathlib.Path(module.__file__).parent / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / (name + '.duckdb_extension')}'")
    return connection


def same(found, wanted):
    if found is None or wanted is None:
        return found is None and wanted is None
    if isinstance(found, float) or isinstance(wanted, float):
        return abs(float(found) - float(wanted)) <= 1e-9 * max(1.0, abs(float(wanted)))
    return decimal.Decimal(str(found)) == decimal.Decimal(str(wanted))


def open_catalog(database):
    return SqlCatalog("iceberg", uri=f"sqlite:///file:{database}?mode=ro&uri=true&timeout=30", init_catalog_tables="false")


def table_pointers(database):
    """Where each table's metadata is. Read in one statement: that is what makes the answers one cut."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return {
            f"{namespace}.{table}": location
            for namespace, table, location in connection.execute(
                "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables WHERE catalog_name = 'iceberg'"
            )
        }


def main(database, expected_file):
    expected = json.loads(pathlib.Path(expected_file).read_text())
    catalog = open_catalog(database)
    pointers = table_pointers(database)
    duck = open_duckdb()
    differences = []

    def check(reader, table, what, found, wanted):
        if not same(found, wanted):
            differences.append(f"{reader}: {table}: {what} is {found}, written {wanted}")

    for table, wanted in expected["tables"].items():
        arrow = catalog.load_table(table).scan().to_arrow()
        scan = f"iceberg_scan('{pointers[table]}')"
        check("pyiceberg", table, "row count", arrow.num_rows, wanted["rows"])
        check("duckdb", table, "row count", duck.sql(f"SELECT count(*) FROM {scan}").fetchone()[0], wanted["rows"])
        if "columns" in wanted and arrow.column_names != wanted["columns"]:
            differences.append(f"pyiceberg: {table}: columns are {arrow.column_names}, written {wanted['columns']}")
        for column, total in wanted.get("sums", {}).items():
            check("pyiceberg", table, f"sum({column})", pc.sum(arrow.column(column)).as_py(), total)
            check("duckdb", table, f"sum({column})", duck.sql(f"SELECT sum({quoted(column)}) FROM {scan}").fetchone()[0], total)
        for column, distinct in wanted.get("distinct", {}).items():
            check("pyiceberg", table, f"distinct {column}", pc.count_distinct(arrow.column(column)).as_py(), distinct)
            found = duck.sql(f"SELECT count(DISTINCT {quoted(column)}) FROM {scan}").fetchone()[0]
            check("duckdb", table, f"distinct {column}", found, distinct)
        # A filter makes the readers prune by the statistics and partition values that we wrote: wrong ones lose rows here.
        for condition, rows in wanted.get("where", {}).items():
            found = catalog.load_table(table).scan(row_filter=condition).to_arrow().num_rows
            check("pyiceberg", table, f"rows where {condition}", found, rows)
            found = duck.sql(f"SELECT count(*) FROM {scan} WHERE {condition}").fetchone()[0]
            check("duckdb", table, f"rows where {condition}", found, rows)
        summary = catalog.load_table(table).current_snapshot().summary
        # a summary's records are the rows of data files, position deletes say which of them are gone
        left = int(summary["total-records"]) - int(summary["total-position-deletes"])
        check("pyiceberg", table, "total-records", left, wanted["rows"])

    epochs = catalog.load_table("livelake._epochs").scan().to_arrow()
    check("pyiceberg", "livelake._epochs", "newest epoch", pc.max(epochs.column("epoch")).as_py(), expected["epoch"])
    for line in differences:
        print(line)
    return 3 if differences else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
