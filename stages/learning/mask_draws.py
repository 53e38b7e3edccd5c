"""Draws the pictures whose true masks are learned from: some of each class, or those of a list."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.errors import InputError
from ..scores.truth import GroundTruth
from .draws import draw_per_class, order_by_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDraw:
    """Exactly one of the first three is given."""

    share: float = 0.0  # of the pictures of each class
    per_class: int = 0
    ids: Sequence[str] = ()
    seed: int
    needs: str  # what a picture may lack, for messages

    def count(self, pictures: int) -> int:
        """How many of a class's pictures to draw."""
        return self.per_class or max(1, round(self.share * pictures))


def draw_masked_pictures(
    draw: MaskDraw,
    usable: Collection[str],
    truth: GroundTruth,
    classes: Sequence[int],
    names: Mapping[int, str],
    underway: Underway,
) -> list[str]:
    """Ids in the order of their hashes. `usable` are the pictures with a mask that show one of the `classes`, or any if
    none are given; `names` are those of the classes."""
    if draw.ids:
        return order_by_hash(_ids_of_list(draw, usable, truth, classes, underway), draw.seed)
    labels = {
        identifier: [label for label in truth.labels[identifier] if not classes or label in classes] or [0]
        for identifier in usable
    }
    _report_small_classes(draw, labels, names, underway)
    return draw_per_class(labels, draw.count, draw.seed)


def _ids_of_list(
    draw: MaskDraw, usable: Collection[str], truth: GroundTruth, classes: Sequence[int], underway: Underway
) -> list[str]:
    others = [identifier for identifier in draw.ids if identifier not in usable]
    unknown = [identifier for identifier in others if identifier not in truth.ids] if classes else others
    if unknown:
        raise InputError(
            f"{count_of(len(unknown), 'id of --gt-list has', 'ids of --gt-list have')} no {draw.needs}, the "
            f"first is {unknown[0]!r}; correct the list (an id is a picture's path without its extension)"
        )
    listed = [identifier for identifier in draw.ids if identifier in usable]
    if not listed:
        raise InputError("no picture of --gt-list shows one of the given classes; name others, or leave classes out")
    if others:
        underway.say(f"left out {count_of(len(others), 'picture')} of --gt-list without any of the given classes")
    return listed


def _report_small_classes(
    draw: MaskDraw, labels: Mapping[str, Collection[int]], names: Mapping[int, str], underway: Underway
) -> None:
    counts = Counter(chain.from_iterable(labels.values()))
    few = sorted(index for index, count in counts.items() if count < draw.per_class)
    if few:
        named = ", ".join(f"{names.get(index, 'without class')}: {counts[index]}" for index in few[:8])
        named += " …" if len(few) > 8 else ""
        underway.say(
            f"{count_of(len(few), 'class has', 'classes have')} fewer than "
            f"{count_of(draw.per_class, 'picture')} with ground truth, and all of them are drawn ({named})"
        )
