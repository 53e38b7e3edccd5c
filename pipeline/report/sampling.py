"""Chooses the pictures that are shown if there are too many for a page: the same ones every time.

A tenth each are failed, dropped, the worst and the best by the no-reference score; the rest takes turns among the
classes. Within each group, ids with the smallest hashes come first, so that most stay when pictures are added.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from .artifact_rows import ReportRow

_SHARE = 10


class Smallest:
    """Keeps the rows with the smallest keys, in order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, ReportRow]] = []  # keys and positions negated: the largest first

    def add(self, key: float, row: ReportRow) -> None:
        entry = (-key, -row.position, row)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[ReportRow]:
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass(frozen=True, slots=True)
class Sample:
    rows: Sequence[ReportRow]  # in the order of the row list
    worst: Sequence[str]  # ids, the worst first
    best: Sequence[str]
    of: int


def sample(rows: Iterable[ReportRow], count: int, ranked_by: str | None) -> Sample:
    share = max(1, count // _SHARE)
    failed, dropped, worst, best = (Smallest(share) for _ in range(4))
    classes: dict[int, Smallest] = {}
    total = 0
    for row in rows:
        total += 1
        key = _hash(row.id)
        if row.status in ("failed", "upstream"):
            failed.add(key, row)
        elif row.status == "dropped":
            dropped.add(key, row)
        score = row.measure(ranked_by) if ranked_by else None
        if score is not None:
            worst.add(score, row)
            best.add(-score, row)
        for label in row.classes or [0]:
            classes.setdefault(label, Smallest(count)).add(key, row)
    chosen: dict[int, ReportRow] = {}
    special = [worst.rows(), best.rows(), failed.rows(), dropped.rows()]
    for row in (*_in_turn(special), *_in_turn([classes[label].rows() for label in sorted(classes)])):
        if len(chosen) < count:
            chosen.setdefault(row.position, row)
    shown = [chosen[position] for position in sorted(chosen)]
    ids = {row.id for row in shown}
    return Sample(
        rows=shown,
        worst=[row.id for row in worst.rows() if row.id in ids],
        best=[row.id for row in best.rows() if row.id in ids],
        of=total,
    )


def _hash(identifier: str) -> float:
    return float(int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:6], "big"))  # 48 bits, exact


def _in_turn(lists: Sequence[Sequence[ReportRow]]) -> Iterator[ReportRow]:
    for rows in zip_longest(*lists):
        yield from (row for row in rows if row is not None)
