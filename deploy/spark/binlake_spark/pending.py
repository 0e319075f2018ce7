"""What one table has on the stream and not yet in the lake: rows by the cut that will cover them, truncations, changes of shape."""

import uuid
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from .chunk import CutPoint, NewShape, Rows, Truncate, arrow_schema
from .positions import Covered, has_reached

SNAPSHOT, LIVE, STOPPED = "snapshot", "live", "stopped"


class HandBack(Exception):
    """Something that Binlake does and this job doesn't: nothing of it is committed, and Binlake goes on from the last commit."""


@dataclass
class Piece:
    """Rows in one window, in memory or staged."""

    window: CutPoint
    generation: int
    rows: pa.Table | None
    path: str | None = None


@dataclass
class Pending:
    """See the module. `checkpoint` is that of the table's last commit; a commit replaces it."""

    table: str
    stream_id: str
    checkpoint: dict
    staging: str
    most_bytes: int = 256 << 20
    pieces: list = field(default_factory=list)
    truncations: list = field(default_factory=list)  # (window, stamp, generation)
    generations: dict = field(default_factory=dict)  # lane: the number of the last truncation that it has seen
    shapes: list = field(default_factory=list)  # (window, shape)
    covered: tuple = (0, None)  # the latest producer, and what the table had when it was first seen
    furthest: dict = None
    arrivals: int = 0

    def __post_init__(self):
        self.staged, self.root = fs.FileSystem.from_uri(self.staging)
        self.staged.create_dir(self.root)
        self.furthest = self.checkpoint["position"]

    @property
    def at(self):
        """The cut of the last commit; None if that was on another stream."""
        is_ours = self.checkpoint["stream_id"] == self.stream_id
        return CutPoint(self.checkpoint["epoch"], self.checkpoint["cut"]) if is_ours else None

    def take(self, window, lane, section):
        """Takes a section, in the window that the cut `window` ends."""
        if section.table != self.table or (self.at is not None and window <= self.at):
            return
        if window.epoch > self.covered[0]:
            # what a new producer sends again is covered by what the table has by now; behind the beginning of a snapshot nothing is
            is_anew = any(stamp.is_snapshot for _, stamp, _ in self.truncations)
            self.covered = (window.epoch, None if is_anew else Covered(self.checkpoint["position"]))
        covered = self.covered[1] if window.epoch == self.covered[0] else None
        if any(stamp.is_snapshot and of.epoch == window.epoch for of, stamp, number in self.truncations
               if number <= self.generations.get(lane, 0)):
            covered = None
        is_covered = lambda stamp: covered is not None and not stamp.is_snapshot and covered.has(stamp)
        if isinstance(section, Rows):
            self.take_rows(window, lane, section, is_covered)
        elif not is_covered(section.stamp):
            if isinstance(section, Truncate):
                self.truncate(window, lane, section.stamp)
            elif isinstance(section, NewShape) and all(shape != section.shape for _, shape in self.shapes):
                self.shapes.append((window, section.shape))

    def take_rows(self, window, lane, rows, is_covered):
        kept = np.array([not is_covered(stamp) for stamp in rows.transactions], bool)[rows.stamps]
        if not kept.any():
            return
        stamps = pa.array(rows.stamps)
        times = pa.array([stamp.micros for stamp in rows.transactions], pa.timestamp("us", "UTC"))
        places = pa.array([stamp.position for stamp in rows.transactions], pa.string())
        orders = np.arange(len(rows.stamps), dtype=np.int64) + (self.arrivals << 32)
        self.arrivals += 1
        table = pa.Table.from_batches([rows.batch])
        for name, column in [
            ("_commit_ts", times.take(stamps)),
            ("_position", places.take(stamps)),
            ("__deleted", pa.array(rows.operations == ord("d"))),
            ("__order", pa.array(orders)),
        ]:
            table = table.append_column(name, column)
        table = table if kept.all() else table.filter(pa.array(kept))
        self.pieces.append(Piece(window, self.generations.get(lane, 0), table))
        if sum(piece.rows.nbytes for piece in self.pieces if piece.rows) > self.most_bytes:
            self.stage()

    def truncate(self, window, lane, stamp):
        """The lanes come to it one after the other; rows behind it on their lane have its number."""
        seen = self.generations.get(lane, 0)
        same = (number for of, known, number in self.truncations if number > seen and of == window and known == stamp)
        number = next(same, None)
        if number is None:
            number = 1 + max((number for _, _, number in self.truncations), default=max(self.generations.values(), default=0))
            self.truncations.append((window, stamp, number))
        self.generations[lane] = number

    def void(self, void):
        """Forgets what will never be covered by a cut."""
        for piece in [piece for piece in self.pieces if void.covers(piece.window)]:
            self.pieces.remove(piece)
        self.truncations = [known for known in self.truncations if not void.covers(known[0])]
        self.shapes = [known for known in self.shapes if not void.covers(known[0])]

    def position_at(self, reached):
        """The position that a commit at the cut would carry; None if there must be no commit."""
        state = reached.cut["tables"].get(self.table, {"state": SNAPSHOT})
        if state["state"] == SNAPSHOT or (self.at is not None and reached.point <= self.at):
            return None
        position = reached.cut["position"] if state["state"] == LIVE else state["position"]
        begins_anew = any(stamp.is_snapshot and window <= reached.point for window, stamp, _ in self.truncations)
        # an older producer may have completed a cut that went further than this one
        return position if begins_anew or has_reached(position, self.furthest) else None

    def batch(self, reached):
        """(paths of staged rows, whether all that the table had goes) for a commit at the cut; None if nothing has changed."""
        known = [column for column in self.checkpoint["source_schema"]["columns"]]
        for window, shape in self.shapes:
            if window <= reached.point and shape["columns"] != known:
                raise HandBack("the table's columns change here")
        truncations = [number for window, _, number in self.truncations if window <= reached.point]
        generation = max(truncations, default=0)
        due = [piece for piece in self.pieces if piece.window <= reached.point and piece.generation >= generation]
        if not due and not truncations:
            return None
        self.stage(reached.point)
        return [piece.path for piece in due], bool(truncations)

    def stage(self, until=None):
        """Moves rows from memory to files, those of one window to one file."""
        waiting = {}
        expected = arrow_schema(self.checkpoint["source_schema"])
        for piece in self.pieces:
            if piece.rows is not None and (until is None or piece.window <= until):
                if piece.rows.schema.names[: len(expected)] != expected.names:
                    raise HandBack("the table's columns change here")
                waiting.setdefault((piece.window, piece.generation), []).append(piece)
        for pieces in waiting.values():
            path = f"{self.root}/{uuid.uuid4()}.parquet"
            pq.write_table(pa.concat_tables(piece.rows for piece in pieces), path, filesystem=self.staged, compression="zstd")
            for piece in pieces:
                piece.rows, piece.path = None, path

    def done(self, reached, checkpoint):
        """The commit is visible."""
        paths = {piece.path for piece in self.pieces if piece.window <= reached.point}
        self.pieces = [piece for piece in self.pieces if piece.window > reached.point]
        self.truncations = [known for known in self.truncations if known[0] > reached.point]
        self.shapes = [known for known in self.shapes if known[0] > reached.point]
        self.checkpoint, self.furthest = checkpoint, checkpoint["position"]
        for path in paths - {None}:
            self.staged.delete_file(path)
