"""Upserts into a table of tickets by Spark with Hudi, delta-rs and DuckDB: the peers of `cargo bench --bench merge`, on data of the same shape.
Prints a Markdown row a step: peer, step, seconds.

usage: merge_peers.py WORK_FOLDER ROWS [hudi] [delta] [duckdb]
"""

import os
import shutil
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

work, rows = os.path.abspath(sys.argv[1]), int(sys.argv[2])
peers = sys.argv[3:] or ["duckdb", "delta", "hudi"]
steps = [("10 % changed", rows // 10), ("0.1 % changed", rows // 1000), ("100 rows", 100)]
KEY = "ticketactivity_id"


def tickets(keys, seed):
    """Rows with these keys: words from short lists, numbers, times. 11 columns."""
    random = np.random.default_rng(seed)
    count = len(keys)

    def words(values):
        return pa.DictionaryArray.from_arrays(pa.array(random.integers(0, len(values), count, dtype="int32")), pa.array(values)).cast(pa.string())

    def numbered(pattern, end):
        return pa.array([pattern % number for number in random.integers(0, end, count)])

    def times(start):
        return pa.array(np.datetime64(start, "us") + random.integers(0, 31_000_000, count).astype("timedelta64[s]"))

    return pa.table({
        KEY: pa.array(keys, pa.int32()),
        "sport_type": words(["baseball", "football", "basketball", "ice hockey", "soccer", "tennis"]),
        "start_date": times("2026-01-01"),
        "location": words(["Seattle, Lumen Field", "New York, Madison Square Garden", "Boston, Fenway Park", "Münster, Preußenstadion"]),
        "seat_level": words(["Standard", "Premium", "Luxury", "Club"]),
        "seat_location": numbered("A-%d", 20_000),
        "ticket_price": pa.array(random.integers(20, 900, count, dtype="int32")),
        "customer_name": numbered("Customer %d", 100_000),
        "email_address": numbered("customer.%d@example.com", 1_000_000),
        "created_at": times("2026-01-01"),
        "updated_at": times("2026-06-01"),
    })


def prepare():
    """The table and the batches, as Parquet files; 98 % of a batch's keys are in the table, spread evenly."""
    os.makedirs(work, exist_ok=True)
    pq.write_table(tickets(np.arange(1, rows + 1, dtype="int32"), 1), f"{work}/base.parquet")
    random = np.random.default_rng(2)
    for number, (_, count) in enumerate(steps):
        known = random.choice(rows, count - count // 50, replace=False).astype("int32") + 1
        new = np.arange(rows + 1 + number * rows, rows + 1 + number * rows + count // 50, dtype="int32")
        pq.write_table(tickets(np.concatenate([known, new]), 3 + number), f"{work}/batch{number}.parquet")


def timed(peer, step, run):
    start = time.monotonic()
    run()
    print(f"| {peer} | {step} | {time.monotonic() - start:.1f} s |", flush=True)


def delta():
    from deltalake import DeltaTable, write_deltalake

    path = f"{work}/delta"
    shutil.rmtree(path, ignore_errors=True)
    timed("delta-rs", "load", lambda: write_deltalake(path, pq.read_table(f"{work}/base.parquet")))

    def merge(number):
        batch = pq.read_table(f"{work}/batch{number}.parquet")
        merger = DeltaTable(path).merge(batch, f"t.{KEY} = s.{KEY}", source_alias="s", target_alias="t")
        merger.when_matched_update_all().when_not_matched_insert_all().execute()

    for number, (step, _) in enumerate(steps):
        timed("delta-rs merge", step, lambda: merge(number))


def duckdb():
    """The floor: one file written anew, without a table format."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    current, following = f"{work}/duckdb0.parquet", f"{work}/duckdb1.parquet"

    def copy(query, path):
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")

    timed("DuckDB, a file rewritten by hand", "load", lambda: copy(f"FROM '{work}/base.parquet'", current))
    for number, (step, _) in enumerate(steps):
        batch = f"{work}/batch{number}.parquet"
        query = f"FROM '{current}' AS t ANTI JOIN '{batch}' AS s USING ({KEY}) UNION ALL FROM '{batch}'"
        timed("DuckDB, a file rewritten by hand", step, lambda: copy(query, following))
        current, following = following, current


def hudi():
    from pyspark.sql import SparkSession

    jar = os.environ["HUDI_BUNDLE"]
    spark = (
        SparkSession.builder.master("local[2]").config("spark.driver.memory", "10g").config("spark.jars", jar)
        .config("spark.driver.host", "127.0.0.1").config("spark.serializer", "org.apache.spark.serializer.KryoSerializer")
        .config("spark.sql.extensions", "org.apache.spark.sql.hudi.HoodieSparkSessionExtension").config("spark.ui.enabled", "false")
        .config("spark.sql.parquet.inferTimestampNTZ.enabled", "false").config("spark.sql.shuffle.partitions", "2").config("spark.local.dir", f"{work}/spark").getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    path = f"{work}/hudi"
    shutil.rmtree(path, ignore_errors=True)
    options = {
        "hoodie.table.name": "ticket_activity", "hoodie.datasource.write.recordkey.field": KEY, "hoodie.datasource.write.precombine.field": "updated_at",
        "hoodie.datasource.write.partitionpath.field": "", "hoodie.metadata.enable": "false", "hoodie.index.type": "BUCKET",
        "hoodie.index.bucket.engine": "SIMPLE", "hoodie.bucket.index.num.buckets": "8", "hoodie.cleaner.commits.retained": "1",
        "hoodie.upsert.shuffle.parallelism": "2", "hoodie.bulkinsert.shuffle.parallelism": "2",
    }

    def write(name, operation, mode):
        frame = spark.read.parquet(f"{work}/{name}.parquet")
        frame.write.format("hudi").options(**options).option("hoodie.datasource.write.operation", operation).mode(mode).save(path)

    timed("Spark 3.5 with Hudi 0.15, bucket index", "load (bulk_insert)", lambda: write("base", "bulk_insert", "overwrite"))
    for number, (step, _) in enumerate(steps):
        timed("Spark 3.5 with Hudi 0.15, bucket index", step, lambda: write(f"batch{number}", "upsert", "append"))


prepare()
for peer in peers:
    {"hudi": hudi, "delta": delta, "duckdb": duckdb}[peer]()
