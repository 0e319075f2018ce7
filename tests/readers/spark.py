"""Spark 3.5 with Hudi 0.15 over a table of ours: reads it in every way, and writes into it. Driven by lines on standard input, so that one
Spark serves a whole test; each answer ends with a line `done` or `failed …`.

usage: spark.py HUDI_BUNDLE_JAR WORK_FOLDER

    snapshot TABLE COLUMN,…            all rows
    as-of TABLE COLUMN,… INSTANT       time travel
    since TABLE COLUMN,… INSTANT       incremental: the rows changed after the instant
    sql TABLE COLUMN,… SQL             what SQL over the view `input` (the table) answers
    upsert TABLE KEY PARTITION SQL     upserts what SQL over the view `input` (the table's rows) gives; PARTITION is - for none.
                                       All of Hudi's settings are left as they are by default: the metadata table is on.
    savepoints TABLE                   instants of its savepoints
    delete-savepoint TABLE INSTANT     deletes one
"""

import os
import sys

from plain import show
from pyspark.sql import SparkSession

bundle, work = sys.argv[1:]
answers = os.fdopen(os.dup(1), "w")  # Spark prints to standard output as well: keep ours apart
os.dup2(2, 1)
sys.stdout = answers

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.driver.memory", "2g")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.jars", bundle)
    .config("spark.serializer", "org.apache.spark.serializer.KryoSerializer")
    .config("spark.kryo.registrator", "org.apache.spark.HoodieSparkKryoRegistrar")
    .config("spark.sql.extensions", "org.apache.spark.sql.hudi.HoodieSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.hudi.catalog.HoodieCatalog")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.driver.extraJavaOptions", "-Duser.timezone=UTC")
    .config("spark.sql.warehouse.dir", f"{work}/warehouse")
    .config("spark.local.dir", f"{work}/local")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def read(table, **options):
    reader = spark.read.format("hudi")
    for name, value in options.items():
        reader = reader.option(name.replace("__", "."), value)
    return reader.load(table)


def rows(frame, columns):
    show(tuple(row) for row in frame.select(*columns.split(",")).collect())


def snapshot(table, columns):
    rows(read(table), columns)


def as_of(table, columns, instant):
    rows(read(table, as__of__instant=instant), columns)


def since(table, columns, instant):
    query = {"hoodie.datasource.query.type": "incremental", "hoodie.datasource.read.begin.instanttime": instant}
    rows(spark.read.format("hudi").options(**query).load(table), columns)


def sql(table, columns, statement):
    read(table).createOrReplaceTempView("input")
    rows(spark.sql(statement), columns)


def upsert(table, key, partition, sql):
    own = [column for column in read(table).columns if column.startswith("_hoodie_")]
    read(table).drop(*own).createOrReplaceTempView("input")
    options = {
        "hoodie.table.name": os.path.basename(table),
        "hoodie.datasource.write.recordkey.field": key,
        "hoodie.datasource.write.precombine.field": "_commit_ts",
        "hoodie.datasource.write.partitionpath.field": "" if partition == "-" else partition,
        "hoodie.datasource.write.hive_style_partitioning": "false" if partition == "-" else "true",
        "hoodie.datasource.write.operation": "upsert",
    }
    changed = spark.sql(sql).cache()
    print("changed", changed.count(), file=sys.stderr)
    changed.write.format("hudi").options(**options).mode("append").save(table)


def savepoints(table):
    show((row["savepoint_time"],) for row in spark.sql(f"CALL show_savepoints(path => '{table}')").collect())


def delete_savepoint(table, instant):
    spark.sql(f"CALL delete_savepoint(path => '{table}', instant_time => '{instant}')").collect()


COMMANDS = {
    "snapshot": snapshot,
    "as-of": as_of,
    "since": since,
    "sql": sql,
    "upsert": upsert,
    "savepoints": savepoints,
    "delete-savepoint": delete_savepoint,
}
print("done", flush=True)
for line in sys.stdin:
    command, *arguments = line.rstrip("\n").split("\t")
    spark.catalog.clearCache()
    try:
        COMMANDS[command](*arguments)
        print("done", flush=True)
    except Exception as error:  # the test shows it
        print("failed", " ".join(str(error).split())[:2000], flush=True)
