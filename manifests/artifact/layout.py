"""Which unit holds which rows, and which slot of an array each row uses.

A unit is one shard of every array its stage writes. Rows added later start at the next shard boundary, so existing
units keep their rows, slots and bytes; the slots in between stay empty.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

MAX_UNIT_ROWS = 1024
MAX_UNIT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Unit:
    """The work of one worker: rows [start, stop) of the artifact's row list."""

    index: int
    start: int
    stop: int
    ids_sha256: str = ""  # over the ids in order; the worker checks that it reads the planned rows

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Layout:
    unit_rows: int
    segments: tuple[int, ...]  # rows planned by the first run, then by each later one

    @property
    def num_rows(self) -> int:
        return sum(self.segments)

    @property
    def num_units(self) -> int:
        return sum(self._units_of(rows) for rows in self.segments)

    @property
    def num_slots(self) -> int:
        """The length of every array: up to the last slot in use."""
        return self.slot(self.num_rows - 1) + 1 if self.num_rows else 0

    def units(self) -> Iterator[Unit]:
        index = start = 0
        for rows in self.segments:
            for first in range(0, rows, self.unit_rows):
                yield Unit(index, start + first, start + min(first + self.unit_rows, rows))
                index += 1
            start += rows

    def unit(self, index: int) -> Unit:
        first = start = 0
        for rows in self.segments:
            units = self._units_of(rows)
            if index < first + units:
                offset = (index - first) * self.unit_rows
                return Unit(index, start + offset, start + min(offset + self.unit_rows, rows))
            first, start = first + units, start + rows
        raise IndexError(index)

    def unit_of(self, position: int) -> int:
        return self.slot(position) // self.unit_rows

    def slot(self, position: int) -> int:
        """The slot of the row at a position of the row list."""
        if not 0 <= position < self.num_rows:
            raise IndexError(position)
        starts = [0, *accumulate(self.segments)]
        segment = bisect_right(starts, position) - 1
        first_unit = sum(self._units_of(rows) for rows in self.segments[:segment])
        return first_unit * self.unit_rows + position - starts[segment]

    def _units_of(self, rows: int) -> int:
        return -(-rows // self.unit_rows)


def default_unit_rows(bytes_per_row: int, limit: int = MAX_UNIT_ROWS, max_bytes: int = MAX_UNIT_BYTES) -> int:
    """The most rows that stay within `max_bytes` and `limit`; at least one."""
    return max(1, min(limit, max_bytes // max(1, bytes_per_row)))
