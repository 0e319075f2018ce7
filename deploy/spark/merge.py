#!/usr/bin/env python3
"""Merges one table of a Binlake stream by Spark: takes it where Binlake's last commit left it, and leaves it so that Binlake takes it back.

    spark-submit --packages org.apache.hudi:hudi-spark3.5-bundle_2.12:0.15.0 --py-files binlake_spark.zip merge.py \\
        --stream kinesis://tickets-cdc?region=eu-west-1 --lake s3://bucket/prefix --table shop.orders

Exit code 0: told to stop, or with --once at what was the stream's end. 3: the table is Binlake's again from here on (a change of its columns; it was stopped), and
the last line says why. No `binlake merge` may have the table meanwhile: README.md.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time

from pyspark.sql import SparkSession

from binlake_spark.dms import Assembly
from binlake_spark.lanes import CutPoint, CutReached, LaneProtocol, Sections, Void
from binlake_spark.pending import STOPPED, HandBack, Pending
from binlake_spark.sources import open_source
from binlake_spark.table import CHECKPOINT, POSITION, Table

CONFIGURATION = {
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryo.registrator": "org.apache.spark.HoodieSparkKryoRegistrar",
    "spark.sql.extensions": "org.apache.spark.sql.hudi.HoodieSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.hudi.catalog.HoodieCatalog",
    # DATETIME is the wall clock as if UTC, and dates of before 1582 are the proleptic calendar's, as in all files of Binlake
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.avro.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.avro.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
}


class Merge:
    """The micro-batches of one table."""

    def __init__(self, spark, arguments):
        self.spark, self.arguments = spark, arguments
        self.lake = arguments.lake.rstrip("/")
        self.table = self.hudi(arguments.table)
        self.source = open_source(arguments.stream)
        self.is_stopped = False
        self.reached, self.positions = None, {}

    def hudi(self, table):
        database, name = table.split(".", 1)
        return Table(self.spark, f"{self.lake}/{database}/{name}")

    def begin(self):
        """Reads the checkpoint, and goes to where the stream has all that the table lacks."""
        said = self.table.said()
        if CHECKPOINT not in said:
            raise HandBack("the table has no commit of Binlake's yet: Binlake makes it and its snapshot")
        if instants := self.table.unfinished():
            raise HandBack(f"Binlake has begun {instants[0]} and was killed: `binlake clean {self.arguments.table}` ends it")
        if self.table.properties()["hoodie.table.precombine.field"] != "_commit_ts":
            raise HandBack("the table has `ordering`: which row wins is decided by Binlake")
        checkpoint = json.loads(said[CHECKPOINT])
        if checkpoint["version"] != 1:
            raise HandBack(f"the checkpoint is of version {checkpoint['version']}, which this job doesn't know")
        if checkpoint["stream_id"] != self.source.stream_id:
            raise HandBack(f"the table's last commit is of the stream {checkpoint['stream_id']}, not of {self.source.stream_id}")
        if "binlake.transformed" in said:
            raise HandBack("the table has a transform, which Binlake does")
        if "binlake.committed_with" in said:
            raise HandBack("the table has a history, which Binlake writes with it")
        resume = checkpoint["resume"]
        self.start = resume
        self.source.seek(resume and resume["log_position"])
        after = CutPoint(resume["epoch"], resume["cut"]) if resume else None
        self.protocol = LaneProtocol(self.source.lanes, after)
        self.assembly = Assembly() if self.arguments.format == "dms-json" else None
        self.pending = Pending(self.arguments.table, self.source.stream_id, checkpoint, self.arguments.staging)
        print(f"begins after cut {checkpoint['epoch']}/{checkpoint['cut']}", flush=True)

    def run(self):
        last_commit = time.monotonic()
        while True:
            records = self.source.next()
            for position, record in records:
                for event in self.events(position, record):
                    self.take(event)
            is_over = self.is_stopped or (self.arguments.once and self.source.has_caught_up())
            if is_over or time.monotonic() - last_commit >= self.arguments.commit_interval:
                self.commit()
                last_commit = time.monotonic()
            if is_over:
                return
            if not records:
                time.sleep(0.2)

    def events(self, position, record):
        if self.assembly is None:
            yield from self.protocol.accept(position, record)
            return
        for chunk in self.assembly.accept(position, record):
            yield from self.protocol.accept_chunk(*chunk)

    def take(self, event):
        if isinstance(event, Sections):
            for section in event.sections:
                self.pending.take(event.window, event.lane, section)
        elif isinstance(event, Void):
            self.pending.void(event)
        elif isinstance(event, CutReached):
            if self.changes_at(event):
                # up to the cut before this one all is ours yet
                self.commit()
                raise HandBack("the table's columns change at the next cut")
            self.reached = event

    def changes_at(self, event):
        known = self.pending.checkpoint["source_schema"]["columns"]
        return any(window <= event.point and shape["columns"] != known for window, shape in self.pending.shapes)

    def commit(self):
        """Commits at the last cut reached, if that changes anything."""
        reached, pending = self.reached, self.pending
        position = reached and pending.position_at(reached)
        if position is None:
            return
        batch = pending.batch(reached)
        is_stopped = reached.cut["tables"][pending.table]["state"] == STOPPED
        if batch is not None:
            said = self.table.said()
            if json.loads(said[CHECKPOINT]) != pending.checkpoint:
                raise HandBack("another has committed to the table meanwhile; start this job again when it has stopped")
            checkpoint = {
                **pending.checkpoint,
                "stream_id": self.source.stream_id,
                "epoch": reached.point.epoch,
                "cut": reached.point.number,
                "resume": self.resume(reached),
                "position": position,
                "source_commit_time": reached.cut["source_commit_time"],
            }
            text = position["gtid_set"] or f"{position['coordinates']['file']}:{position['coordinates']['offset']}"
            paths, truncate = batch
            staged = [f"{self.arguments.staging}/{path.rsplit('/', 1)[-1]}" for path in dict.fromkeys(paths)]
            self.table.commit(staged, truncate, {**said, CHECKPOINT: json.dumps(checkpoint), POSITION: text})
            pending.done(reached, checkpoint)
            print(f"committed at cut {reached.point.epoch}/{reached.point.number}", flush=True)
        if is_stopped:
            raise HandBack("the source's table was stopped: " + reached.cut["tables"][pending.table]["reason"])

    def resume(self, reached):
        """From here on the stream has all that any table of the pipeline lacks: the lowest of this commit's place and the other tables'."""
        ours = {"epoch": reached.point.epoch, "cut": reached.point.number, "log_position": reached.position}
        needs = [ours]
        for other in reached.cut["tables"]:
            if other == self.arguments.table:
                continue
            said = self.hudi(other).said().get(CHECKPOINT)
            checkpoint = json.loads(said) if said else None
            is_ours = checkpoint is not None and checkpoint["stream_id"] == self.source.stream_id
            # one without a commit may need all that came since this job's own beginning
            needs.append(checkpoint["resume"] if is_ours else self.start)
        return min(needs, key=lambda need: (need["epoch"], need["cut"]) if need else (0, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stream", required=True, help="as stream.url in binlake.toml: file:FOLDER or kinesis://STREAM?region=…")
    parser.add_argument("--format", choices=["binlake", "dms-json"], default="binlake", help="as stream.format")
    parser.add_argument("--lake", required=True, help="the lake's folder, as Spark names it: s3://bucket/prefix or file:/data/lake")
    parser.add_argument("--table", required=True, help="database.table")
    parser.add_argument("--staging", help="a folder for rows between stream and table, which all executors reach; removed at the end")
    parser.add_argument("--commit-interval", type=float, default=60, help="seconds")
    parser.add_argument("--once", action="store_true", help="end at what is the stream's end now")
    arguments = parser.parse_args()
    is_local = arguments.staging is None
    if is_local:
        arguments.staging = "file://" + tempfile.mkdtemp(prefix="binlake-staging-")
    builder = SparkSession.builder.appName(f"binlake {arguments.table}")
    for name, value in CONFIGURATION.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    merge = Merge(spark, arguments)
    signal.signal(signal.SIGTERM, lambda *_: setattr(merge, "is_stopped", True))
    try:
        merge.begin()
        merge.run()
        return 0
    except HandBack as reason:
        print(f"{arguments.table}: {reason}", flush=True)
        return 3
    finally:
        if is_local:
            shutil.rmtree(arguments.staging.removeprefix("file://"), ignore_errors=True)
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
