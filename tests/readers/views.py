"""Computes a lake's materialized views with DuckDB from the lake's own SQL and files, and compares what the lake answers and what its
Iceberg tables hold, as pyiceberg and as DuckDB read them.

usage: views.py LAKE ANSWERS

LAKE is the lake's folder, with its tables in .livelake; ANSWERS holds NAME.parquet for each materialized view. Counts, texts, times and
decimals must be equal; floats may differ by one in 10^9, because floats are not added up in one order.
Leaves with 3 and a line per difference when anything differs, with 0 otherwise.

What is understood of SQL is what the lakes of examples/ use: sources of files, views, TUMBLE, now().
"""

import csv
import glob
import os
import pathlib
import re
import sys

import pyarrow

from compare import open_catalog, open_duckdb, quoted, table_pointers


def statements(folder):
    """All statements of all files, without comments."""
    for file in sorted(folder.glob("*.sql")):
        text = re.sub(r"--[^\n]*", "", file.read_text())
        yield from (part.strip() for part in text.split(";") if part.strip())


def create(duck, name, what, body):
    schema, table = name.split(".")
    duck.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    duck.execute(f"CREATE {what} {schema}.{table} {body}")


def instant(column, given, zone):
    """An expression for the instant of a stamp; one without a zone is local in `zone`."""
    if given == "TIMESTAMP WITH TIME ZONE":
        return column
    if re.fullmatch(r"[+-]\d\d:\d\d", zone):
        hours, minutes = int(zone[:3]), int(zone[0] + zone[4:])
        return f"timezone('UTC', CAST({column} AS TIMESTAMP) - INTERVAL '{hours * 60 + minutes} minutes')"
    return f"timezone('{zone}', CAST({column} AS TIMESTAMP))"


def read_csv(file):
    """All fields as texts. Python's reader, because some real files have more than one kind of line end."""
    with open(file, encoding="utf-8", newline=None) as lines:
        header, *rows = csv.reader(lines)
    columns = [[field or None for field in column] for column in zip(*rows)]
    return pyarrow.table([pyarrow.array(column, pyarrow.string()) for column in columns], names=header)


def load_source(duck, folder, name, columns, options):
    """Makes a table of a source and fills it from its files. Columns are matched by name, whatever their case."""
    create(duck, name, "TABLE", f"({columns})")
    declared = duck.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM {name})").fetchall()
    pattern = re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], options["path"])
    for file in sorted(glob.glob(str(folder / pattern))):
        if options["format"] == "csv":
            duck.register("lines_of_a_file", read_csv(file))
        rows = f"read_parquet('{file}')" if options["format"] == "parquet" else "lines_of_a_file"
        described = duck.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM {rows})").fetchall()
        given = {column.lower(): (column, kind) for column, kind in described}
        chosen = []
        for column, kind in declared:
            here, here_kind = given.get(column.lower(), ("", ""))
            if not here:
                chosen.append("NULL")
            elif kind == "TIMESTAMP WITH TIME ZONE":
                chosen.append(instant(quoted(here), here_kind, options.get("time_zone", "UTC")))
            else:
                chosen.append(f"CAST({quoted(here)} AS {kind})")
        duck.execute(f"INSERT INTO {name} SELECT {', '.join(chosen)} FROM {rows}")


def duckdb_query(query, now):
    """A view's query in DuckDB's words."""
    query = re.sub(
        r"TUMBLE\(([\w.]+),\s*(\w+),\s*(INTERVAL '[^']*')\)",
        r"(SELECT *, time_bucket(\3, \2) AS window_start, time_bucket(\3, \2) + \3 AS window_end FROM \1)",
        query,
    )
    return query.replace("now()", f"make_timestamptz({now})")


def compute(duck, folder, now):
    """Makes all sources, views and tables; the names of the materialized views and the sinks' relations by table."""
    views, sinks = [], {}
    for text in statements(folder):
        if found := re.fullmatch(r"CREATE SOURCE ([\w.]+) \((.*)\)\s*WITH \((.*)\)", text, re.S):
            options = dict(re.findall(r"([\w.]+)\s*=\s*'([^']*)'", found[3]))
            load_source(duck, folder, found[1], found[2], options)
        elif found := re.fullmatch(r"CREATE (MATERIALIZED )?VIEW ([\w.]+) AS\s(.*)", text, re.S):
            # a view that is kept is computed once
            create(duck, found[2], "TABLE" if found[1] else "VIEW", "AS " + duckdb_query(found[3], now))
            if found[1]:
                views.append(found[2])
        elif found := re.match(r"CREATE SINK ([\w.]+) FROM ([\w.]+)", text):
            sinks[found[1]] = found[2]
        else:
            raise SystemExit(f"not understood: {text[:80]}")
    return views, sinks


def difference(duck, ours, theirs):
    """What is different between two relations, in words; None if nothing is."""
    columns = duck.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM {theirs})").fetchall()
    named = [column for (column,) in duck.sql(f"SELECT column_name FROM (DESCRIBE FROM {ours})").fetchall()]
    if sorted(named) != sorted(column for column, _ in columns):
        return f"columns are {named}, not {[column for column, _ in columns]}"
    rows = [duck.sql(f"SELECT count(*) FROM {relation}").fetchone()[0] for relation in (ours, theirs)]
    if rows[0] != rows[1]:
        return f"{rows[0]} rows, not {rows[1]}"
    floats = [column for column, kind in columns if kind == "DOUBLE"]
    exact = [column for column, kind in columns if kind != "DOUBLE"]
    # floats come last, so that a tiny difference does not change the order of rows
    order = ", ".join(quoted(column) for column in exact + floats)
    unequal = [f"a.{quoted(column)} IS DISTINCT FROM b.{quoted(column)}" for column in exact]
    for column in map(quoted, floats):
        near = f"abs(a.{column} - b.{column}) <= 1e-9 * greatest(abs(a.{column}), abs(b.{column}))"
        unequal.append(f"(a.{column} IS DISTINCT FROM b.{column} AND NOT coalesce({near}, false))")
    pairs = (
        f"FROM (SELECT {order} FROM {ours} ORDER BY {order}) AS a POSITIONAL JOIN (SELECT {order} FROM {theirs} ORDER BY {order}) AS b "
        f"WHERE {' OR '.join(unequal)}"
    )
    count = duck.sql(f"SELECT count(*) {pairs}").fetchone()[0]
    if count == 0:
        return None
    examples = duck.sql(f"SELECT a, b {pairs} LIMIT 3").fetchall()
    return "\n".join([f"{count} of {rows[0]} rows differ"] + [f"  {a}\n  not {b}" for a, b in examples])


def main(lake, answers):
    database = lake / ".livelake/catalog.db"
    catalog = open_catalog(database)
    epochs = catalog.load_table("livelake._epochs").scan().to_arrow().to_pylist()
    now = max(epoch["timestamp"] for epoch in epochs)
    pointers = table_pointers(database)
    duck = open_duckdb()
    duck.execute("SET TimeZone = 'UTC'")
    views, sinks = compute(duck, lake, now)
    differences = []

    def check(reader, ours, relation):
        found = difference(duck, ours, relation)
        if found:
            differences.append(f"{reader}: {relation}: {found}")
        else:
            print(f"{reader}: {relation}: {duck.sql(f'SELECT count(*) FROM {relation}').fetchone()[0]} rows are equal")

    for view in views:
        check("the lake's answer", f"read_parquet('{answers / view}.parquet')", view)
    for table, relation in sinks.items():
        if table not in pointers:
            # a table is made when it gets its first rows
            check("the tables", f"(FROM {relation} LIMIT 0)", relation)
            continue
        # found by DuckDB under its name
        read_by_pyiceberg = catalog.load_table(table).scan().to_arrow()
        assert isinstance(read_by_pyiceberg, pyarrow.Table)
        duck.register("read_by_pyiceberg", read_by_pyiceberg)
        check("pyiceberg", "read_by_pyiceberg", relation)
        check("duckdb", f"iceberg_scan('{pointers[table]}')", relation)
    for line in differences:
        print(line)
    return 3 if differences else 0


if __name__ == "__main__":
    sys.exit(main(*map(pathlib.Path, sys.argv[1:])))
