"""Where the stream's records come from: the embedded log's folder, or Kinesis. Each gives (position before it, record), lane by lane in order."""

import calendar
import json
import struct
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from .chunk import Damaged

SEGMENT_HEADER, FRAME = 64, struct.Struct("<IHHI")
MOST_BYTES = 64 << 20


def open_source(url):
    """`file:FOLDER` or `kinesis://STREAM?region=…&endpoint=…`, as `stream.url` of binlake.toml."""
    if url.startswith("file:"):
        return FileSource(Path(url.removeprefix("file:").removeprefix("//")))
    if url.startswith("kinesis://"):
        return KinesisSource(url)
    raise ValueError(f"{url} is neither file:FOLDER nor kinesis://STREAM")


class FileSource:
    """The embedded log: segments of framed records, up to the end that the producer has noted as durable."""

    def __init__(self, folder):
        identity = json.loads((folder / "stream.json").read_text())
        self.folder, self.stream_id, self.lanes = folder, identity["stream_id"], identity["lanes"]
        self.segment, self.at = min(self.segments(), default=1), SEGMENT_HEADER

    def segments(self):
        return sorted(int(path.stem) for path in self.folder.glob("*.segment"))

    def seek(self, position):
        if position is not None:
            self.segment, self.at = map(int, position.split(":"))
            if self.segment < min(self.segments(), default=1):
                raise Damaged("the stream no longer has the records from the checkpoint on")
        self.goal = self.end()

    def has_caught_up(self):
        """Whether all was read that was there when reading began."""
        return (self.segment, self.at) >= self.goal

    def end(self):
        while True:  # a look at it may meet the very write: then the checksum is wrong
            place, checksum = (self.folder / "end").read_text().split()
            if int(checksum, 16) == zlib.crc32(place.encode()):
                return tuple(map(int, place.split(":")))

    def next(self):
        """The records that are there, at most some 64 MiB; empty: nothing new at the moment."""
        end, records, size = self.end(), [], 0
        while (self.segment, self.at) < end and size < MOST_BYTES:
            data = (self.folder / f"{self.segment:012}.segment").read_bytes()
            limit = end[1] if self.segment == end[0] else len(data)
            while self.at < limit and size < MOST_BYTES:
                length, lane, _, crc = FRAME.unpack_from(data, self.at)
                record = data[self.at + FRAME.size : self.at + FRAME.size + length]
                if zlib.crc32(record, zlib.crc32(data[self.at : self.at + 8])) != crc:
                    raise Damaged(f"a record of segment {self.segment} at {self.at} is damaged")
                records.append((f"{self.segment}:{self.at}", record))
                self.at += FRAME.size + length
                size += length
            if self.at >= limit and self.segment < end[0]:
                self.segment, self.at = self.segment + 1, SEGMENT_HEADER
        return records


class KinesisSource:
    """All shards of a stream, children after their parents.

    A position names the shards that are being read: `k1 3:4967…,4:T,5:E`: a sequence number (the last one read), T: from its oldest record, E: read to its
    end, its children not begun. A shard that isn't named was read if it is an ancestor of one that is; else it comes after its parents.
    """

    def __init__(self, url):
        import boto3

        parts = urlsplit(url)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.name = parts.netloc
        self.client = boto3.client("kinesis", region_name=options.get("region"), endpoint_url=options.get("endpoint"))
        tags = self.client.list_tags_for_stream(StreamName=self.name)["Tags"]
        self.lanes = int(next(tag["Value"] for tag in tags if tag["Key"] == "binlake.lanes"))
        summary = self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        # one that was deleted and made anew under its name is another
        made = summary["StreamCreationTimestamp"]
        self.stream_id = f"kinesis:{self.name}@{calendar.timegm(made.utctimetuple()) * 1000 + made.microsecond // 1000}"
        self.places, self.iterators, self.behind = {}, {}, {}

    def shards(self):
        """Each shard's parents, as far as they are still listed."""
        pages = self.client.get_paginator("list_shards").paginate(StreamName=self.name)
        listed = [shard for page in pages for shard in page["Shards"]]
        known = {shard["ShardId"] for shard in listed}
        parents = lambda shard: {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")} & known
        return {shard["ShardId"]: parents(shard) for shard in listed}

    def seek(self, position):
        if position in (None, "k1 oldest"):
            self.places = {shard: "T" for shard, parents in self.shards().items() if not parents}
            return
        if not position.startswith("k1 ") or "@" in position:
            raise ValueError(f"{position} is no position that this reader can begin at")
        pairs = (part.rsplit(":", 1) for part in position[3:].split(","))
        self.places = {f"shardId-{int(shard):012}" if shard.isdigit() else shard: place for shard, place in pairs}
        if gone := set(self.places) - set(self.shards()):
            raise Damaged(f"shards of the checkpoint are gone, and what they had with them: {', '.join(sorted(gone))}")

    def has_caught_up(self):
        """Whether each shard was once read to where it ended then."""
        return all(not self.behind.get(shard, True) for shard, place in self.places.items() if place != "E")

    def position(self):
        short = lambda shard: str(int(shard[8:])) if shard.startswith("shardId-") and len(shard) == 20 else shard
        return "k1 " + ",".join(f"{short(shard)}:{place}" for shard, place in sorted(self.places.items()))

    def next(self):
        """One call a shard; empty: nothing new at the moment, on any shard."""
        records = []
        for shard in [shard for shard, place in self.places.items() if place != "E"]:
            before = self.position()
            answer = self.read(shard)
            for record in answer["Records"]:
                records.append((before, record["Data"]))
                self.places[shard] = record["SequenceNumber"]
            self.behind[shard] = self.behind.get(shard, True) and answer.get("MillisBehindLatest", 1) > 0
            self.iterators[shard] = answer.get("NextShardIterator")
            if self.iterators[shard] is None:
                self.places[shard] = "E"
        if "E" in self.places.values():
            self.go_on_with_children()
        return records

    def read(self, shard):
        for attempt in range(2):
            if self.iterators.get(shard) is None:
                place = self.places[shard]
                after = {"StartingSequenceNumber": place} if place != "T" else {}
                kind = "AFTER_SEQUENCE_NUMBER" if after else "TRIM_HORIZON"
                asked = dict(StreamName=self.name, ShardId=shard, ShardIteratorType=kind, **after)
                self.iterators[shard] = self.client.get_shard_iterator(**asked)["ShardIterator"]
            try:
                return self.client.get_records(ShardIterator=self.iterators[shard])
            except self.client.exceptions.ExpiredIteratorException:
                if attempt:
                    raise
                self.iterators[shard] = None
            except self.client.exceptions.ProvisionedThroughputExceededException:
                return {"Records": [], "NextShardIterator": self.iterators[shard]}

    def go_on_with_children(self):
        """Shards whose parents were all read to their end are begun; parents all of whose children were begun are no longer named."""
        shards = self.shards()
        ended = {shard for shard, place in self.places.items() if place == "E"}
        for shard, parents in shards.items():
            if parents & ended and parents <= ended:
                self.places.setdefault(shard, "T")
        for shard in ended:
            children = [child for child, parents in shards.items() if shard in parents]
            if children and all(child in self.places for child in children):
                del self.places[shard]

