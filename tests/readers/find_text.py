"""Says which Parquet files below a folder have a text: in their rows as pyarrow and DuckDB read them, or in the statistics of their footers.

usage: find_text.py FOLDER TEXT
"""

import pathlib
import sys

import duckdb
import pyarrow.parquet as parquet
from plain import show

folder, text = sys.argv[1:]
connection = duckdb.connect()


def is_in(value):
    if isinstance(value, bytes):
        return text.encode() in value
    if isinstance(value, dict):
        return any(is_in(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_in(part) for part in value)
    return value is not None and text in str(value)


def places(path):
    file = parquet.ParquetFile(path)
    if any(is_in(row) for row in file.read().to_pylist()):
        yield "pyarrow"
    rows = connection.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(path)]).fetchall()
    if any(is_in(row) for row in rows):
        yield "duckdb"
    ends = connection.execute("SELECT stats_min_value, stats_max_value, stats_min, stats_max FROM parquet_metadata(?)", [str(path)])
    if any(is_in(row) for row in ends.fetchall()):
        yield "statistics"
    if any(is_in(value) for value in (file.metadata.metadata or {}).values()):
        yield "footer"


found = [(str(path), place) for path in sorted(pathlib.Path(folder).rglob("*.parquet")) for place in places(path)]
show(found)
