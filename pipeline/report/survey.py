"""One pass over all rows in bounded memory: counts, and the distribution of each measure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from .artifact_rows import MEANINGS, ReportRow

FINE = 1000  # bins while counting; several of them make a bar
BARS = 24  # at most
_RANGES: Mapping[str, tuple[float, float]] = {"separation": (-1.0, 1.0), "num_components": (0.0, float(FINE))}
_TRUTH = "gt"


@dataclass(frozen=True, slots=True)
class Histogram:
    name: str
    meaning: str
    low: float
    high: float
    median: float
    bars: Sequence[tuple[int, int]]  # objects of kept pictures, and of others
    count: int


@dataclass(slots=True)
class ClassCount:
    """Pictures with a class, by their masks or else their labels."""

    pictures: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    pictures: int
    with_objects: int  # kept pictures whose masks hold something
    statuses: Mapping[str, int]
    sources: Sequence[str]
    classes: Mapping[int, ClassCount]
    histograms: Sequence[Histogram]
    dropped: Sequence[tuple[str, int]]  # failed condition → pictures


def survey(rows: Iterable[ReportRow], measures: Sequence[str]) -> Survey:
    """The distributions leave out objects of the ground truth."""
    fine = {name: np.zeros((2, FINE), np.int64) for name in measures}
    with_objects = 0
    statuses, sources, dropped = Counter[str](), set[str](), Counter[str]()
    classes: dict[int, ClassCount] = {}
    for row in rows:
        statuses[row.status] += 1
        with_objects += row.status == "kept" and any(one.holds_something for one in row.objects)
        sources.update(one.source for one in row.objects if one.source)
        if row.status == "dropped":
            dropped[_condition(row.why)] += 1
        for label in row.classes:
            count = classes.setdefault(label, ClassCount())
            count.pictures += 1
            count.kept += row.status == "kept"
        for one in row.objects:
            for name, value in one.measures.items() if one.source != _TRUTH else ():
                fine[name][0 if row.status == "kept" else 1, _bin(name, value)] += 1
    return Survey(
        pictures=statuses.total(),
        with_objects=with_objects,
        statuses=statuses,
        sources=sorted(sources),
        classes=dict(sorted(classes.items())),
        histograms=[drawn for name in measures if (drawn := _histogram(name, fine[name])) is not None],
        dropped=dropped.most_common(),
    )


def _condition(why: str) -> str:
    """The part that all pictures share: "area < 0.01" for "cat: area 0.004 < 0.01"."""
    words = why.rpartition(": ")[2].split(" ")
    return " ".join([words[0], *words[2:]]) if len(words) == 4 else why.rpartition(": ")[2]


def _bin(name: str, value: float) -> int:
    low, high = _RANGES.get(name, (0.0, 1.0))
    return min(FINE - 1, max(0, int((value - low) / (high - low) * FINE)))


def _histogram(name: str, fine: Int64[np.ndarray, "2 bins"]) -> Histogram | None:
    both = fine.sum(axis=0)
    occupied = np.flatnonzero(both)
    if not len(occupied):
        return None
    low, high = _RANGES.get(name, (0.0, 1.0))
    step = (high - low) / FINE
    first, last = int(occupied[0]), int(occupied[-1])
    width = -(-(last + 1 - first) // BARS)
    starts = range(first, last + 1, width)
    middle = int(np.searchsorted(both.cumsum(), both.sum() / 2))
    return Histogram(
        name=name,
        meaning=MEANINGS[name],
        low=low + first * step,
        high=min(high, low + (starts[-1] + width) * step),
        median=low + (middle if name == "num_components" else middle + 0.5) * step,
        bars=[(int(fine[0, at : at + width].sum()), int(fine[1, at : at + width].sum())) for at in starts],
        count=int(both.sum()),
    )
