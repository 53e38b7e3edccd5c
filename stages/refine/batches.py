"""Pictures of a unit together where that helps: on a GPU, which one small picture leaves idle."""

import math
from collections.abc import Iterable, Iterator

from ...manifests.errors import RowFailed
from .refinement import Refined, Refinement, Unrefined, refine_batch

VALUES_AT_ONCE = 2**25  # pixels times labels

Numbered = tuple[int, Refined | RowFailed]


def refine_in_batches(
    asked: Iterable[tuple[int, Unrefined | Refined | RowFailed]], refinement: Refinement
) -> Iterator[Numbered]:
    """What became of each row, not in order. On a CPU one picture after the other, as nothing is gained by more."""
    is_alone = refinement.smoother is None or refinement.device == "cpu"
    waiting: dict[tuple[int, ...], list[tuple[int, Unrefined]]] = {}
    values = 0
    for index, each in asked:
        if not isinstance(each, Unrefined):
            yield index, each
            continue
        waiting.setdefault(each.shape, []).append((index, each))
        values += math.prod(each.shape)
        if is_alone or values >= VALUES_AT_ONCE:
            yield from _refine_waiting(waiting, refinement)
            waiting, values = {}, 0
    yield from _refine_waiting(waiting, refinement)


def _refine_waiting(
    waiting: dict[tuple[int, ...], list[tuple[int, Unrefined]]], refinement: Refinement
) -> Iterator[Numbered]:
    for alike in waiting.values():
        found = refine_batch([each for _, each in alike], refinement)
        yield from zip((index for index, _ in alike), found, strict=True)
