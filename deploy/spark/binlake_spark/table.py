"""A Hudi table of Binlake's (table version 6, copy-on-write): what its last commits say, and commits by Spark that say the same."""

import json
import re

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

CHECKPOINT, POSITION = "binlake.checkpoint", "binlake.position"
INSTANT = re.compile(r"(\d{17})\.(commit|replacecommit)$")


class Table:
    """`folder` is a Hadoop URL: `file:/…`, `s3://…`."""

    def __init__(self, spark, folder):
        self.spark, self.folder = spark, folder
        self.path = spark._jvm.org.apache.hadoop.fs.Path
        self.files = self.path(folder).getFileSystem(spark._jsc.hadoopConfiguration())

    def names(self):
        folder = self.path(f"{self.folder}/.hoodie")
        if not self.files.exists(folder):
            return []
        return [entry.getPath().getName() for entry in self.files.listStatus(folder)]

    def text(self, name):
        stream = self.files.open(self.path(f"{self.folder}/.hoodie/{name}"))
        try:
            return self.spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
        finally:
            stream.close()

    def properties(self):
        lines = (line for line in self.text("hoodie.properties").splitlines() if not line.startswith("#"))
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def partition_columns(self):
        return list(filter(None, self.properties().get("hoodie.table.partition.fields", "").split(",")))

    def said(self):
        """What the newest commits say in `extraMetadata`, back to the last one that has a checkpoint; of each key the newest."""
        said = {}
        completed = sorted(filter(None, map(INSTANT.match, self.names())), key=lambda name: name[1], reverse=True)
        for name in completed:
            for key, value in json.loads(self.text(name[0]))["extraMetadata"].items():
                said.setdefault(key, value)
            if CHECKPOINT in said:
                break
        return said

    def unfinished(self):
        """Instants that a crashed Binlake has begun: only Binlake can tell whether they took effect."""
        names = self.names()
        completed = {match[1] for match in map(INSTANT.match, names) if match}
        begun = [name for name in names if name.endswith("commit.requested") and name[:17] not in completed]
        return [name[:17] for name in begun if "binlake.writer" in self.text(name)]

    def commit(self, paths, truncate, said):
        """One commit: the last change of each key, and `said` beside it; with `truncate`, nothing of before stays."""
        properties = self.properties()
        key = properties["hoodie.table.recordkey.fields"].split(",")
        partition = self.partition_columns()
        columns = [field["name"] for field in json.loads(said["schema"])["fields"]]
        rows = self.spark.read.parquet(*paths) if paths else self.empty(columns, said)
        for name in partition:
            rows = rows.withColumn(name, partition_value(name, rows.columns))
        # NULL and the empty text are one partition
        group = [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in partition] + [F.col(name) for name in key]
        last = Window.partitionBy(*group).orderBy(F.col("__order").desc())
        rows = rows.withColumn("__rank", F.row_number().over(last)).where("__rank = 1")
        if truncate:
            rows = rows.where("NOT __deleted").select(*columns)
        else:
            # the delete marker stands last, so that records are read without it: no file has it
            rows = rows.select(*columns, F.col("__deleted").alias("_hoodie_is_deleted"))
        rows = self.as_required(rows, said)
        options = {
            "hoodie.table.name": properties["hoodie.table.name"],
            "hoodie.database.name": properties.get("hoodie.database.name", ""),
            "hoodie.datasource.write.table.type": "COPY_ON_WRITE",
            "hoodie.datasource.write.operation": "insert_overwrite_table" if truncate else "upsert",
            "hoodie.datasource.write.recordkey.field": ",".join(key),
            "hoodie.datasource.write.precombine.field": properties["hoodie.table.precombine.field"],
            "hoodie.datasource.write.partitionpath.field": ",".join(partition),
            "hoodie.datasource.write.keygenerator.class": properties["hoodie.table.keygenerator.class"],
            "hoodie.datasource.write.hive_style_partitioning": str(bool(partition)).lower(),
            "hoodie.datasource.write.partitionpath.urlencode": str(bool(partition)).lower(),
            "hoodie.datasource.write.payload.class": "org.apache.hudi.common.model.OverwriteWithLatestAvroPayload",
            "hoodie.write.schema": said["schema"],
            "hoodie.combine.before.upsert": "false",
            "hoodie.index.type": "SIMPLE",
            "hoodie.parquet.compression.codec": "zstd",
            # a metadata table that Binlake doesn't keep would go stale; the table's services are Binlake's
            "hoodie.metadata.enable": "false",
            "hoodie.clean.automatic": "false",
            "hoodie.archive.automatic": "false",
            # options with this prefix become the commit's extraMetadata: rows and checkpoint become visible together
            "hoodie.datasource.write.commitmeta.key.prefix": "binlake.",
        }
        kept = {name: value for name, value in said.items() if name.startswith("binlake.") and value is not None}
        rows.write.format("hudi").options(**options, **kept).mode("append").save(self.folder)

    def as_required(self, rows, said):
        """The same rows with the table's own NOT NULLs: Hudi reads what it has written in memory by the table's schema."""
        required = {field["name"] for field in json.loads(said["schema"])["fields"] if not isinstance(field["type"], list)}
        schema = json.loads(rows.schema.json())
        for field in schema["fields"]:
            field["nullable"] = field["name"] not in required
        session = self.spark._jsparkSession
        return DataFrame(session.createDataFrame(rows._jdf.toJavaRDD(), session.parseDataType(json.dumps(schema))), self.spark)

    def empty(self, columns, said):
        """No rows, with the table's columns: all that is left after a truncation."""
        rows = self.spark.read.format("hudi").load(self.folder).select(*columns).limit(0)
        return rows.withColumn("__deleted", F.lit(False)).withColumn("__order", F.lit(0))


def partition_value(name, columns):
    """A partition column: the source's own, or named `<column>_<function>`."""
    if name in columns:
        return F.col(name)
    column, _, function = name.rpartition("_")
    if function == "year":
        return F.year(column)
    forms = {"month": "yyyy-MM", "day": "yyyy-MM-dd", "hour": "yyyy-MM-dd-HH"}
    return F.date_format(F.col(column), forms[function])
