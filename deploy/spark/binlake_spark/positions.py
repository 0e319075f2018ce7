"""Positions in the source's history: GTID sets, and binlog coordinates where there are none."""

import re
from bisect import bisect_right


class GtidSet:
    """MySQL's intervals a source and tag; MariaDB's last sequence of each server in a domain; the last record of each shard."""

    def __init__(self, text):
        self.intervals, self.domains, self.shards = {}, {}, {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            if "#" in part:
                shard, number = part.rsplit("#", 1)
                shard = shard.replace("%2c", ",").replace("%23", "#").replace("%25", "%")
                self.shards[shard] = max(int(number), self.shards.get(shard, 0))
            elif ":" in part:
                source, *fields = part.split(":")
                tag = ""
                for field in fields:
                    if re.match("[a-zA-Z_]", field):
                        tag = field.lower()
                        continue
                    first, _, last = field.partition("-")
                    self.intervals.setdefault((source.lower(), tag), []).append((int(first), int(last or first)))
            else:
                domain, server, sequence = map(int, part.split("-"))
                servers = self.domains.setdefault(domain, {})
                servers[server] = max(sequence, servers.get(server, 0))
        for ranges in self.intervals.values():
            ranges.sort()

    def contains(self, gtid):
        origin, number = gtid
        if origin[0] == "mysql":
            ranges = self.intervals.get(origin[1:], [])
            at = bisect_right(ranges, (number, float("inf"))) - 1
            return at >= 0 and ranges[at][0] <= number <= ranges[at][1]
        if origin[0] == "mariadb":
            servers = self.domains.get(origin[1], {})
            # a domain's numbers rise across its servers
            return number <= servers.get(origin[2], max(servers.values(), default=0))
        return number <= self.shards.get(origin[1], 0)

    def covers(self, other):
        """Whether all of `other` is in this set."""
        mysql = all(
            any(first <= low and high <= last for first, last in self.intervals.get(source, []))
            for source, ranges in other.intervals.items()
            for low, high in ranges
        )
        mariadb = all(
            self.contains((("mariadb", domain, server), sequence))
            for domain, servers in other.domains.items()
            for server, sequence in servers.items()
        )
        return mysql and mariadb and all(self.contains((("record", s), n)) for s, n in other.shards.items())


def coordinates(place):
    """A key to compare binlog coordinates by: the number at the end of the file's name, then the offset."""
    digits = place["file"].rsplit(".", 1)[-1]
    return (int(digits) if digits.isdigit() else 0, place["offset"])


class Covered:
    """Which transactions lie before a position."""

    def __init__(self, position):
        self.gtids = GtidSet(position["gtid_set"]) if position["gtid_set"] is not None else None
        self.coordinates = coordinates(position["coordinates"])

    def has(self, stamp):
        if self.gtids is not None and stamp.gtid is not None:
            return self.gtids.contains(stamp.gtid)
        return coordinates({"file": stamp.file, "offset": stamp.offset}) < self.coordinates


def has_reached(position, before):
    """Whether `position` has all of `before` behind it."""
    if position["gtid_set"] is not None and before["gtid_set"] is not None:
        return GtidSet(position["gtid_set"]).covers(GtidSet(before["gtid_set"]))
    is_same = position["lineage"] == before["lineage"]
    return not is_same or coordinates(position["coordinates"]) >= coordinates(before["coordinates"])
