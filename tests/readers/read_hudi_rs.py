"""Reads a table with hudi-rs.

usage: read_hudi_rs.py TABLE COLUMN,COLUMN… [--as-of INSTANT | --since INSTANT]
"""

import argparse

import pyarrow as pa
from hudi import HudiQueryType, HudiReadOptions, HudiTableBuilder
from plain import show

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("columns", type=lambda text: text.split(","))
parser.add_argument("--as-of")
parser.add_argument("--since")
arguments = parser.parse_args()

options = HudiReadOptions()
if arguments.as_of:
    options = options.with_as_of_timestamp(arguments.as_of)
if arguments.since:
    options = options.with_query_type(HudiQueryType.Incremental).with_start_timestamp(arguments.since)
for batch in HudiTableBuilder.from_base_uri(arguments.table).build().read(options):
    table = pa.Table.from_batches([pa.record_batch(batch)])
    show(zip(*(table[column].to_pylist() for column in arguments.columns)))
