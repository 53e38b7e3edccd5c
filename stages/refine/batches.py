"""Refines pictures of a unit together on a GPU, which one small picture would leave idle."""

import math
from collections.abc import Iterable, Iterator

from ...manifests.errors import RowFailed
from .refinement import Refined, Refinement, Unrefined, refine_batch

VALUES_AT_ONCE = 2**25  # pixels times labels

Numbered = tuple[int, Refined | RowFailed]


def refine_in_batches(
    rows: Iterable[tuple[int, Unrefined | Refined | RowFailed]], refinement: Refinement
) -> Iterator[Numbered]:
    """The result of each row, in any order. On a CPU pictures are refined one by one, because batches gain nothing."""
    is_alone = refinement.smoother is None or refinement.device == "cpu"
    waiting: dict[tuple[int, ...], list[tuple[int, Unrefined]]] = {}
    values = 0
    for index, row in rows:
        if not isinstance(row, Unrefined):
            yield index, row
            continue
        waiting.setdefault(row.shape, []).append((index, row))
        values += math.prod(row.shape)
        if is_alone or values >= VALUES_AT_ONCE:
            yield from _refine_waiting(waiting, refinement)
            waiting, values = {}, 0
    yield from _refine_waiting(waiting, refinement)


def _refine_waiting(
    waiting: dict[tuple[int, ...], list[tuple[int, Unrefined]]], refinement: Refinement
) -> Iterator[Numbered]:
    for batch in waiting.values():
        indices, rows = zip(*batch, strict=True)
        yield from zip(indices, refine_batch(rows, refinement), strict=True)
