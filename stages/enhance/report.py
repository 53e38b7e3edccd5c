"""What an enhancer is worth: maps before and after, cut and judged on pictures that it has not seen.

Letters: K rows of a picture, H heads, R C rows and columns of patches, P Q of cells, I J pixels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts
from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.files.sealed import Json
from ..maps.cutting import cut_maps
from ..maps.object_classes import KnownClasses
from ..scores.intervals import counts_interval, difference_interval
from ..scores.iou import Counts, mean_iou, pixel_counts, stack_counts
from ..scores.truth import GroundTruth
from .cells import Cells, enhanced_facts
from .examples import MapExample, true_labels
from .kinds import HEAD_MAPS

EnhancedMaps = Float32[np.ndarray, "K P Q"]
Enhance = Callable[[Sequence[MapExample], Float32[np.ndarray, "K H R C"]], EnhancedMaps]
THRESHOLD = 0.5  # of enhanced maps


@dataclass(frozen=True, slots=True)
class BeforeAfterCounts:
    """The same pictures twice."""

    before: Sequence[Counts]
    after: Sequence[Counts]


def before_after_counts(
    maps: Artifact,
    truth: GroundTruth,
    pictures: Mapping[str, Sequence[MapExample]],
    classes: Sequence[int],
    cells: Cells,
    enhance: Enhance,
) -> BeforeAfterCounts:
    """Of `pictures`, the rows of each. Where classes are named, the others are background."""
    counts = list(_counts(maps, truth, pictures, classes, cells, enhance))
    return BeforeAfterCounts([before for before, _ in counts], [after for _, after in counts])


def before_after_scores(found: BeforeAfterCounts, seed: int) -> dict[str, Json]:
    """mIoU with its interval before and after, and that of the difference; of pictures whose masks say something."""
    if not any(len(each.classes) for each in found.before):
        return {"pictures": 0}
    miou = partial(mean_iou, with_background=True)
    return {
        "pictures": len(found.before),
        "before": counts_interval(stack_counts(found.before), miou, seed=seed).as_json(),
        "after": counts_interval(stack_counts(found.after), miou, seed=seed).as_json(),
        "difference": difference_interval(found.before, found.after, miou, seed=seed).as_json(),
    }


def _counts(
    maps: Artifact,
    truth: GroundTruth,
    pictures: Mapping[str, Sequence[MapExample]],
    classes: Sequence[int],
    cells: Cells,
    enhance: Enhance,
) -> Iterator[tuple[Counts, Counts]]:
    facts = MapsFacts.of(maps)
    for identifier, examples in pictures.items():
        positions = [each.position for each in examples]
        known = KnownClasses(num_classes=len(facts.classes), image_labels=truth.labels[identifier])
        true_IJ = _keep_classes(true_labels(truth, examples[0]), classes)
        as_it_was = [each.map_columns(each.threshold) for each in examples]
        before = cut_maps(maps.read("map", positions), as_it_was, facts, known)
        enhanced_KPQ = enhance(examples, maps.read(HEAD_MAPS, positions))
        at_half = [each.map_columns(THRESHOLD) for each in examples]
        after = cut_maps(enhanced_KPQ, at_half, enhanced_facts(facts, cells), known)
        yield pixel_counts(true_IJ, before.label_HW), pixel_counts(true_IJ, after.label_HW)


def _keep_classes(label_IJ: UInt8[np.ndarray, "I J"], classes: Sequence[int]) -> UInt8[np.ndarray, "I J"]:
    kept = np.isin(label_IJ, [*classes, IGNORE]) if classes else np.ones_like(label_IJ, bool)
    return np.where(kept, label_IJ, np.uint8(BACKGROUND))
