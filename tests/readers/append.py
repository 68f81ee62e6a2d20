"""How long pyiceberg takes to append rows like those of the sink's test `a_million_rows_there_and_back`: 1,048,576 rows of four columns.

Prints rows per second for a table in one piece and one in daily partitions, zstd as ours, the best of three each.
"""

import decimal
import pathlib
import tempfile
import time

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import DecimalType, LongType, NestedField, StringType, TimestampType

ROWS = 16 * 65_536


def rows():
    ids = range(ROWS)
    amounts = [decimal.Decimal(i * 37 % 10_000).scaleb(-2) for i in ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "seen_at": pa.array([i * 1_000_000 for i in ids], pa.timestamp("us")),
            "borough": pa.array([["Queens", "Bronx", "Manhattan"][i % 3] for i in ids]),
            "amount": pa.array(amounts, pa.decimal128(12, 2)),
        },
        schema=pa.schema(
            [
                pa.field("id", pa.int64(), nullable=False),
                pa.field("seen_at", pa.timestamp("us")),
                pa.field("borough", pa.string()),
                pa.field("amount", pa.decimal128(12, 2)),
            ]
        ),
    )


def main():
    table = rows()
    schema = Schema(
        NestedField(1, "id", LongType(), required=True),
        NestedField(2, "seen_at", TimestampType()),
        NestedField(3, "borough", StringType()),
        NestedField(4, "amount", DecimalType(12, 2)),
    )
    daily = PartitionSpec(
        PartitionField(2, 1000, DayTransform(), "seen_day"), PartitionField(3, 1001, IdentityTransform(), "borough")
    )
    for name, spec in (("one piece", PartitionSpec()), ("daily partitions", daily)):
        times = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                catalog = SqlCatalog("iceberg", uri=f"sqlite:///{folder}/c.db", warehouse=pathlib.Path(folder).as_uri())
                catalog.create_namespace("s")
                made = catalog.create_table(
                    "s.t", schema, partition_spec=spec, properties={"write.parquet.compression-codec": "zstd"}
                )
                begun = time.monotonic()
                made.append(table)
                times.append(time.monotonic() - begun)
        print(f"pyiceberg, {name}: {ROWS / min(times) / 1e6:.2f} million rows/s")


if __name__ == "__main__":
    main()
