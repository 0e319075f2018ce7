"""Reads a table with DuckDB, by the lake's views.sql as it is.

usage: read_duckdb.py VIEWS.SQL SCHEMA.VIEW COLUMN,COLUMN…
"""

import sys

import duckdb
from plain import show

views, view, columns = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
with open(views, encoding="utf-8") as file:
    connection.execute(file.read())
quoted = ", ".join(f'"{column}"' for column in columns.split(","))
show(connection.execute(f"SELECT {quoted} FROM {view}").fetchall())
