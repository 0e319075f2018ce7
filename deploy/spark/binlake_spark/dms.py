"""`stream.format = "dms-json"`: records as AWS DMS writes them, put together to the chunks that they were.

Each record has a mark (`metadata.binlake`: lane, epoch, chunk, number); behind a chunk's records stands its own, `{"binlake": …}`, with the header, the shapes,
a checksum and, on one lane, the cut. docs/formats.md describes both.
"""

import base64
import json
import re
import zlib
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa

from .chunk import CutPoint, Damaged, Header, NewShape, Rows, Stamp, Truncate, arrow_schema, lake_type, unpack

OPERATIONS = {"insert": b"c", "update": b"u", "delete": b"d", "load": b"r"}
# more digits than any DECIMAL has
EXACT = Context(prec=80)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class Assembling:
    place: tuple  # (epoch, chunk)
    records: list = field(default_factory=list)
    position: str = ""


class Assembly:
    """Chunks from records. A record that was there already is dropped; one that is missing is damage."""

    def __init__(self):
        self.lanes = {}
        self.done = {}

    def accept(self, position, record):
        """(position, header, sections, cut) of each chunk that the record completes."""
        if record.startswith(b'{"binlake":{'):
            yield from self.finish(position, json.loads(record)["binlake"])
            return
        mark = json.loads(record).get("metadata", {}).get("binlake")
        if mark is None:
            return  # a control record of another's, or of no meaning here
        lane, epoch, chunk, number = map(int, mark.split("."))
        place = (epoch, chunk)
        current = self.lanes.get(lane)
        if place <= self.done.get(lane, (0, 0)) or (current and place < current.place):
            return
        if not current or current.place != place:
            current = self.lanes[lane] = Assembling(place, position=position)
            # where reading begins in the middle of a chunk, its beginning isn't there
            current.records = [None] * number
        if number > len(current.records):
            raise Damaged(f"a record is missing before {mark}")
        if number == len(current.records):
            current.records.append(record)

    def finish(self, position, chunk):
        lane, place = chunk["lane"], (chunk["epoch"], chunk["chunk"])
        if place <= self.done.get(lane, (0, 0)):
            return
        current = self.lanes.pop(lane, None)
        if chunk["records"] == 0 or not current or current.place != place:
            current = Assembling(place, [None] * chunk["records"], position)
        self.done[lane] = place
        is_whole = len(current.records) == chunk["records"] and None not in current.records
        if is_whole and zlib.crc32(b"".join(current.records)) != chunk["crc"]:
            raise Damaged(f"the checksum of chunk {place} on lane {lane} is wrong")
        sections = list(sections_of(chunk.get("shapes", []), current.records)) if is_whole else None
        resumed = chunk.get("resumed_from")
        header = Header(
            lane, chunk["epoch"], chunk["producer"], chunk["chunk"], chunk["window"],
            CutPoint(resumed["epoch"], resumed["number"]) if resumed else None,
            chunk.get("opens_epoch", False), chunk.get("starts_window", False), chunk.get("ends_with_cut", False), 0, 0, 0,
        )
        yield current.position, header, sections, cut_of(chunk.get("cut"))


def cut_of(value):
    return json.loads(unpack(base64.b64decode(value))) if isinstance(value, str) else value


def sections_of(shapes, records):
    """Runs of rows of one shape, and truncations, in the order of the records."""
    shapes = {number: shape for number, shape in shapes}
    by_table, run = {}, []
    for number, record in enumerate(json.loads(record, parse_float=Decimal) for record in records):
        if number in shapes:
            by_table[shapes[number]["table"]] = shapes[number]
        metadata = record["metadata"]
        table = f"{metadata['schema-name']}.{metadata['table-name']}"
        if metadata["record-type"] == "data":
            if run and run[0][0] is not by_table[table]:
                yield rows(run)
                run = []
            run.append((by_table[table], record))
            continue
        if run:
            yield rows(run)
            run = []
        if metadata["operation"] == "truncate-table":
            yield Truncate(table, stamp_of(metadata))
        elif shape := record.get("control", {}).get("binlake", {}).get("schema"):
            yield NewShape(shape, None, stamp_of(metadata))
    if run:
        yield rows(run)


def rows(run):
    shape = run[0][0]
    images = [record.get("data", record.get("before-image")) for _, record in run]
    schema = arrow_schema(shape)
    columns = zip(shape["columns"], schema)
    arrays = [pa.array([decode(c["source_type"], image.get(c["name"])) for image in images], f.type) for c, f in columns]
    operations = b"".join(OPERATIONS[record["metadata"]["operation"]] for _, record in run)
    stamps = [stamp_of(record["metadata"]) for _, record in run]
    return Rows(
        shape, pa.record_batch(arrays, schema), np.frombuffer(operations, np.uint8), np.arange(len(run)), stamps
    )


def stamp_of(metadata):
    file, _, at = metadata["stream-position"].rpartition(":")
    gtid, text = None, metadata.get("gtid")
    if text and ":" in text:
        source, _, number = text.rpartition(":")
        source, _, tag = source.partition(":")
        gtid = (("mysql", source, tag), int(number))
    elif text:
        domain, server, sequence = map(int, text.split("-"))
        gtid = (("mariadb", domain, server), sequence)
    is_snapshot = metadata["operation"] == "load" or metadata.get("is-snapshot", False)
    return Stamp(gtid, text, file, int(at), micros(metadata["commit-timestamp"]), is_snapshot)


def micros(text):
    """ISO 8601, UTC where it says nothing, in microseconds; a year may have more or fewer than four digits."""
    year, rest = re.match(r"([+-]?\d+)(-.*)$", text.replace(" ", "T").removesuffix("Z")).groups()
    return (datetime.fromisoformat(f"{int(year):04}{rest}").replace(tzinfo=timezone.utc) - EPOCH) // timedelta(microseconds=1)


def decode(source, value):
    """A value as `formats.md` says that DMS writes it, for the column's Arrow type."""
    if value is None:
        return None
    kind = lake_type(source)
    if pa.types.is_boolean(kind):
        return value in (True, 1, "1", "true")
    if pa.types.is_decimal(kind):
        return Decimal(value).quantize(Decimal(1).scaleb(-kind.scale), context=EXACT)
    if pa.types.is_integer(kind):
        return int(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_binary(kind):
        return bytes.fromhex(value.removeprefix("0x"))
    if pa.types.is_date(kind):
        return date.fromisoformat(value[:10])
    if pa.types.is_timestamp(kind):
        return micros(value)
    if pa.types.is_list(kind):
        return [float(item) for item in value]
    return str(value) if isinstance(value, (int, Decimal)) else value if isinstance(value, str) else json.dumps(value)
