"""What the records of all lanes mean together: a state machine without I/O. `docs/chunk-format.md`, "Reading"."""

from dataclasses import dataclass, field

from .chunk import CutPoint, Damaged, decode, read_header


@dataclass(frozen=True)
class Sections:
    """A chunk's sections; `window` is the cut that will cover them."""

    window: CutPoint
    lane: int
    sections: list


@dataclass(frozen=True)
class CutReached:
    """All lanes have this cut. From `position` on all can be read again that the cut doesn't cover."""

    point: CutPoint
    cut: dict
    position: str


@dataclass(frozen=True)
class Void:
    """What producers before `epoch` sent behind `after` (None: at all) will never be covered by a cut."""

    epoch: int
    after: CutPoint | None

    def covers(self, window):
        return window.epoch < self.epoch and (self.after is None or window > self.after)


@dataclass
class Lane:
    next: tuple | None = None  # (epoch, index) of the next record
    last_cut: CutPoint | None = None
    parts: list | None = None  # of the chunk that is coming; None: it isn't wanted, or its beginning was before the start


@dataclass
class Pending:
    position: str
    lanes: int = 0
    cut: dict | None = None


@dataclass
class LaneProtocol:
    """Reads a stream from its beginning, or from the position that came with the cut `after`."""

    lane_count: int
    after: CutPoint | None = None
    lanes: list = field(init=False)
    producers: dict = field(default_factory=dict)  # epoch: the producer's own number and the cut from which it resumed
    voids: dict = field(default_factory=dict)  # epoch: Void
    pending: dict = field(default_factory=dict)  # cut point: Pending
    reached: CutPoint | None = None  # the last one

    def __post_init__(self):
        self.lanes = [Lane(last_cut=self.after) for _ in range(self.lane_count)]

    def accept(self, position, record):
        """What a record brings about; `position` is the reader's before it read the record, or the batch that has it."""
        header, part = read_header(record)
        is_last_part = header.part_start + len(part) == header.payload_bytes
        yield from self.take(position, header, part, is_last_part, lambda parts: decode(b"".join(parts), header.control_bytes))

    def accept_chunk(self, position, header, sections, cut):
        """The same for a chunk of another format, put together already; without `sections` its beginning was before the start."""
        yield from self.take(position, header, None, True, lambda _: (sections or [], cut))

    def take(self, position, header, part, is_last_part, content):
        if header.lane >= self.lane_count:
            raise Damaged("the stream has another number of lanes")
        lane = self.lanes[header.lane]
        if header.opens_epoch:
            yield from self.open(lane, header)
            return
        self.meet(header)
        if not self.advance(lane, header):
            return
        if header.part_start == 0:
            lane.parts = []
        if lane.parts is not None:
            lane.parts.append(part)
        if not is_last_part:
            return
        parts, lane.parts = lane.parts, None
        if any(void.covers(header.point) for void in self.voids.values()):
            return
        is_wanted = self.after is None or header.point > self.after
        cut = None
        if is_wanted and parts is not None:
            sections, cut = content(parts)
            if sections:
                yield Sections(header.point, header.lane, sections)
        if header.ends_with_cut:
            lane.last_cut = header.point if lane.last_cut is None else max(lane.last_cut, header.point)
            if is_wanted:
                yield from self.reach(position, header.point, cut)

    def open(self, lane, header):
        """A producer opens its epoch on a lane: what those before it put behind the lane's last cut is void."""
        if lane.next and lane.next[0] >= header.epoch:
            return
        has_older = any(epoch < header.epoch for epoch in self.producers)
        lane.next, lane.parts = (header.epoch, 1), None
        self.producers.setdefault(header.epoch, None)
        known = self.voids.get(header.epoch)
        if known is None or order(lane.last_cut) < order(known.after):
            self.voids[header.epoch] = Void(header.epoch, lane.last_cut)
            if has_older:
                yield self.voids[header.epoch]

    def meet(self, header):
        """Of those who opened lanes with one epoch, at most one goes on."""
        who = (header.producer, header.resumed_from)
        if (self.producers.get(header.epoch) or who) != who:
            raise Damaged("two producers have one epoch")
        self.producers[header.epoch] = who

    def advance(self, lane, header):
        """Whether the record is the lane's next one."""
        epoch, index = lane.next or (0, 0)
        if header.epoch < epoch or (header.epoch == epoch and header.index < index):
            return False  # of an older producer, or a repeat
        if header.epoch == epoch and header.index > index:
            raise Damaged(f"records are missing on lane {header.lane}: {header.index} came, not {index}")
        if header.epoch > epoch and not self.begins(header):
            raise Damaged(f"records are missing at the beginning of lane {header.lane}: the stream's retention was too short")
        if header.epoch == epoch and index == 1 and not order(self.reached) <= order(header.resumed_from) <= order(lane.last_cut):
            raise Damaged(f"a producer resumed from {header.resumed_from}, which lane {header.lane} doesn't have")
        lane.next = (header.epoch, header.index + 1)
        return True

    def begins(self, header):
        """Whether a lane may begin with this record: nothing that is needed can have been before it."""
        if self.after is None:
            return False
        is_next = header.point == CutPoint(self.after.epoch, self.after.number + 1)
        return header.point <= self.after or (is_next and header.starts_window and header.part_start == 0)

    def reach(self, position, point, cut):
        pending = self.pending.setdefault(point, Pending(position))
        pending.lanes += 1
        pending.cut = cut or pending.cut
        if pending.lanes < self.lane_count:
            return
        for earlier in [known for known in self.pending if known <= point]:
            del self.pending[earlier]
        if pending.cut is None:
            raise Damaged("no lane has the cut itself")
        self.reached = point
        yield CutReached(point, pending.cut, pending.position)


def order(cut):
    """No cut comes before all."""
    return cut or CutPoint(0, 0)
