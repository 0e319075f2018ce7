"""The chunk format, version 1: `docs/chunk-format.md`. Bytes in, Arrow record batches out; no I/O."""

import json
import struct
import uuid
import zlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

HEADER = struct.Struct("<4sBBHQQQQQQQIII")
OPENS_EPOCH, STARTS_WINDOW, ENDS_WITH_CUT = 1, 2, 4
ROWS, TRUNCATE, NEW_SHAPE = 1, 2, 3
WIDE, DIFFERENCES, SECONDS = 1, 2, 4
ALIGNMENT = 64


class Damaged(Exception):
    """The stream has what it can't have."""


@dataclass(frozen=True, order=True)
class CutPoint:
    """A cut among those of all producers, in the order in which consumers reach them."""

    epoch: int
    number: int


@dataclass(frozen=True)
class Header:
    """What stands before a record's part of a payload."""

    lane: int
    epoch: int
    producer: int
    index: int
    window: int
    resumed_from: CutPoint | None
    opens_epoch: bool
    starts_window: bool
    ends_with_cut: bool
    payload_bytes: int
    part_start: int
    control_bytes: int

    @property
    def point(self):
        """The cut that will cover the record."""
        return CutPoint(self.epoch, self.window)


def read_header(record):
    """A record's header and its part of the payload, verified."""
    if len(record) < HEADER.size:
        raise Damaged("a record is shorter than its header")
    magic, version, flags, lane, epoch, index, window, cut_epoch, cut, payload, start, control, producer, crc = (
        HEADER.unpack_from(record)
    )
    if magic == b"BLCC":
        raise Damaged("a record is a claim check: this reader needs a stream with `claim_check = false`")
    if magic != b"BLCK" or version != 1:
        raise Damaged(f"a record is no chunk of version 1, but {bytes(record[:5])!r}")
    part = record[HEADER.size :]
    if zlib.crc32(part, zlib.crc32(record[: HEADER.size - 4])) != crc:
        raise Damaged("a record's checksum is wrong")
    resumed_from = CutPoint(cut_epoch, cut) if cut_epoch else None
    bits = (flags & OPENS_EPOCH > 0, flags & STARTS_WINDOW > 0, flags & ENDS_WITH_CUT > 0)
    return Header(lane, epoch, producer, index, window, resumed_from, *bits, payload, start, control), part


def unpack(frame):
    """The content of a zstd frame."""
    return pa.input_stream(pa.BufferReader(frame), compression="zstd").read()


@dataclass
class Stamp:
    """The transaction of a row."""

    gtid: tuple | None  # (origin, number), see `Wire.transactions`
    gtid_text: str | None
    file: str
    offset: int
    micros: int
    is_snapshot: bool

    @property
    def position(self):
        """The lake's `_position`."""
        return self.gtid_text or f"{self.file}:{self.offset}"


@dataclass
class Rows:
    """Changes of one table with one shape, in the order of the source."""

    shape: dict
    batch: pa.RecordBatch
    operations: np.ndarray  # of uint8: the letters c, u, d, r
    stamps: np.ndarray  # each row's index in `transactions`
    transactions: list

    @property
    def table(self):
        return self.shape["table"]


@dataclass
class Truncate:
    """Everything of the table before it goes."""

    table: str
    stamp: Stamp


@dataclass
class NewShape:
    """From here on the table has these columns; `fill` has the value that existing rows get, for new columns that aren't NULL there."""

    shape: dict
    fill: pa.RecordBatch | None
    stamp: Stamp

    @property
    def table(self):
        return self.shape["table"]


def decode(payload, control_bytes):
    """A chunk's payload as (sections, cut); the cut is a dict, or None where the chunk has none on this lane."""
    cut = json.loads(unpack(payload[:control_bytes])) if control_bytes else None
    body = payload[control_bytes:]
    return (decode_body(unpack(body)) if len(body) else []), cut


@dataclass
class Wire:
    """Reads variable-length integers (seven bits a byte, lowest first) and counted strings."""

    data: bytes
    at: int = 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count):
        self.at += count
        if self.at > len(self.data):
            raise Damaged("a chunk ends early")
        return self.data[self.at - count : self.at]

    def uint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def int(self):
        value = self.uint()
        return (value >> 1) ^ -(value & 1)

    def text(self):
        return bytes(self.take(self.uint())).decode()

    def filtered(self):
        """Which ranges of a batch's body were filtered: (start, count, form)."""
        ranges, at = [], 0
        for _ in range(self.uint()):
            start, count, form = at + self.uint(), self.uint(), self.byte()
            ranges.append((start, count, form))
            at = start + count * (8 if form & WIDE else 4)
        return ranges

    def origin(self):
        kind = self.byte()
        if kind == 0:
            return None
        if kind == 1:
            server = str(uuid.UUID(bytes=bytes(self.take(16))))
            return ("mysql", server, self.text())
        if kind == 2:
            return ("mariadb", self.uint(), self.uint())
        if kind == 3:
            return ("record", self.text())
        raise Damaged("a GTID of an unknown kind")

    def transactions(self):
        count = self.uint()
        if count == 0:
            return []
        origins = [self.origin() for _ in range(self.uint())]
        files = [self.text() for _ in range(self.uint())]
        which = [self.uint() for _ in range(count)] if len(origins) > 1 else [0] * count
        last, numbers = [0] * len(origins), []
        for origin in which:
            last[origin] = (last[origin] + self.int()) % (1 << 64)
            numbers.append(last[origin])
        named = [files[self.uint()] for _ in range(count)] if len(files) > 1 else files * count
        offset, offsets = 0, []
        for _ in range(count):
            offset = (offset + self.int()) % (1 << 64)
            offsets.append(offset)
        micros, times = 0, []
        for _ in range(count):
            micros += self.int()
            times.append(micros)
        flags = self.take(count)
        rows = zip(which, numbers, named, offsets, times, flags)
        return [
            Stamp((origins[o], n) if origins[o] else None, gtid_text(origins[o], n), name, at, time, flag != 0)
            for o, n, name, at, time, flag in rows
        ]

    def operations(self, rows):
        if self.byte() == 0:
            return np.full(rows, self.byte(), np.uint8)
        return np.frombuffer(self.take(rows), np.uint8)

    def stamps(self, rows):
        at, values, lengths = 0, [], []
        for _ in range(self.uint()):
            at += self.int()
            values.append(at)
            lengths.append(self.uint() + 1)
        stamps = np.repeat(np.array(values, np.int64), lengths)
        if len(stamps) != rows:
            raise Damaged("rows without a transaction")
        return stamps

    def skip_changed(self, rows):
        """Which columns each update changed: of no use here."""
        form = self.byte()
        if form:
            self.take(self.uint() * rows)
        if form == 2:
            self.take((rows + 7) // 8)


def gtid_text(origin, number):
    """A GTID as its server prints it."""
    if origin is None:
        return None
    if origin[0] == "mysql":
        return f"{origin[1]}:{origin[2]}:{number}" if origin[2] else f"{origin[1]}:{number}"
    if origin[0] == "mariadb":
        return f"{origin[1]}-{origin[2]}-{number}"
    return f"{origin[1].replace('%', '%25').replace('#', '%23').replace(',', '%2c')}#{number}"


@dataclass
class Body:
    """A body that is being read."""

    wire: Wire
    batches: list = field(default_factory=list)  # (message, body) that were not taken yet
    shapes: list = field(default_factory=list)
    lists: list = field(default_factory=list)

    def batch(self, schema):
        message, body = self.batches.pop(0)
        head = message + bytes(-len(message) % 8)
        whole = b"\xff\xff\xff\xff" + struct.pack("<i", len(head)) + head + body
        return pa.ipc.read_record_batch(pa.ipc.read_message(whole), schema)

    def section(self):
        kind = self.wire.byte()
        if kind == ROWS:
            shape, transactions = self.shapes[self.wire.uint()], self.lists[self.wire.uint()]
            batch = self.batch(arrow_schema(shape))
            operations = self.wire.operations(batch.num_rows)
            stamps = self.wire.stamps(batch.num_rows)
            self.wire.skip_changed(batch.num_rows)
            return Rows(shape, batch, operations, stamps, transactions)
        if kind == TRUNCATE:
            database, name = self.wire.text(), self.wire.text()
            return Truncate(f"{database}.{name}", self.lists[self.wire.uint()][0])
        if kind == NEW_SHAPE:
            shape, stamp = self.shapes[self.wire.uint()], self.lists[self.wire.uint()][0]
            columns = [self.wire.uint() for _ in range(self.wire.uint())]
            schema = arrow_schema(shape)
            fill = self.batch(pa.schema([schema.field(i).with_nullable(True) for i in columns])) if columns else None
            return NewShape(shape, fill, stamp)
        raise Damaged("a section of an unknown kind")


def decode_body(body):
    """A body's sections."""
    (length,) = struct.unpack_from("<I", body)
    reader = Body(Wire(body[4 : 4 + length]))
    wire, at = reader.wire, align(4 + length)
    for _ in range(wire.uint()):
        sizes = (wire.uint(), wire.uint())
        message = body[at : at + sizes[0]]
        at = align(at + sizes[0])
        content = bytearray(body[at : at + sizes[1]])
        at = align(at + sizes[1])
        restore(content, wire.filtered())
        reader.batches.append((message, bytes(content)))
    reader.shapes = [json.loads(wire.take(wire.uint())) for _ in range(wire.uint())]
    reader.lists = [wire.transactions() for _ in range(wire.uint())]
    return [reader.section() for _ in range(wire.uint())]


def align(at):
    return at + -at % ALIGNMENT


def restore(body, ranges):
    """Undoes what was done to columns of integers for the sake of compression, in place."""
    for start, count, form in ranges:
        width = 8 if form & WIDE else 4
        planes = np.frombuffer(body, np.uint8, count * width, start).reshape(width, count)
        values = np.ascontiguousarray(planes.T).view(np.int64 if width == 8 else np.int32).reshape(count)
        if form & DIFFERENCES:
            values = np.cumsum(values, dtype=values.dtype)
        if form & SECONDS:
            values = values * np.int64(1_000_000)
        body[start : start + count * width] = values.tobytes()


def arrow_schema(shape):
    """The Arrow schema of a table's shape."""
    key = set(shape["key"])
    columns = enumerate(shape["columns"])
    return pa.schema([pa.field(c["name"], lake_type(c["source_type"]), i not in key) for i, c in columns])


def lake_type(source):
    """The type of a source's column in chunks and in the lake."""
    kind = source["type"]
    if kind == "bool" or (kind == "bit" and source["bits"] == 1):
        return pa.bool_()
    if kind in ("tiny_int", "small_int", "medium_int", "year") or (kind == "int" and not source["unsigned"]):
        return pa.int32()
    if kind == "int" or (kind == "big_int" and not source["unsigned"]):
        return pa.int64()
    if kind == "big_int":
        return pa.decimal128(20, 0)
    if kind == "decimal":
        return pa.decimal128(source["precision"], source["scale"]) if source["precision"] <= 38 else pa.string()
    if kind in ("float", "double"):
        return pa.float32() if kind == "float" else pa.float64()
    if kind in ("bit", "binary", "geometry"):
        return pa.binary()
    if kind == "date":
        return pa.date32()
    if kind in ("date_time", "timestamp"):
        return pa.timestamp("us", "UTC")
    if kind == "vector":
        return pa.list_(pa.field("item", pa.float32()))
    if kind in ("text", "enum", "set", "json", "time"):
        return pa.string()
    raise Damaged(f"a column has the type {kind}, which this reader doesn't know")
