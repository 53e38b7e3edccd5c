"""Scores maps before and after enhancing, on pictures that the enhancer has not seen.

Letters: K rows of a picture, H heads, R C rows and columns of patches, P Q of cells, I J pixels.
"""

from collections.abc import Callable, Mapping, Sequence
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
from .cells import Cells, facts_of_enhanced
from .examples import MapExample
from .kinds import HEAD_MAPS

EnhancedMaps = Float32[np.ndarray, "K P Q"]
Enhance = Callable[[Sequence[MapExample], Float32[np.ndarray, "K H R C"]], EnhancedMaps]
THRESHOLD = 0.5  # of enhanced maps


@dataclass(frozen=True, slots=True)
class BeforeAfterCounts:
    """Pixel counts of the same pictures with both maps."""

    before: list[Counts]
    after: list[Counts]


def before_after_counts(
    maps: Artifact,
    truth: GroundTruth,
    pictures: Mapping[str, Sequence[MapExample]],
    classes: Sequence[int],
    cells: Cells,
    enhance: Enhance,
) -> BeforeAfterCounts:
    """The counts of the rows of each picture. If classes are given, all others are background."""
    facts = MapsFacts.of(maps)
    counts = BeforeAfterCounts([], [])
    for identifier, examples in pictures.items():
        positions = [example.position for example in examples]
        known = KnownClasses(num_classes=len(facts.classes), image_labels=truth.labels[identifier])
        true_IJ = _keep_classes(truth.mask_of_size(examples[0].id, examples[0].size, "maps"), classes)
        own_columns = [example.map_columns(example.threshold) for example in examples]
        before = cut_maps(maps.read("map", positions), own_columns, facts, known)
        counts.before.append(pixel_counts(true_IJ, before.label_HW))
        enhanced_KPQ = enhance(examples, maps.read(HEAD_MAPS, positions))
        enhanced_columns = [example.map_columns(THRESHOLD) for example in examples]
        after = cut_maps(enhanced_KPQ, enhanced_columns, facts_of_enhanced(facts, cells), known)
        counts.after.append(pixel_counts(true_IJ, after.label_HW))
    return counts


def before_after_scores(counts: BeforeAfterCounts, seed: int) -> dict[str, Json]:
    """mIoU before and after and the difference, with intervals, over pictures whose masks are known somewhere."""
    if not any(len(picture.classes) for picture in counts.before):
        return {"pictures": 0}
    miou = partial(mean_iou, with_background=True)
    return {
        "pictures": len(counts.before),
        "before": counts_interval(stack_counts(counts.before), miou, seed=seed).as_json(),
        "after": counts_interval(stack_counts(counts.after), miou, seed=seed).as_json(),
        "difference": difference_interval(counts.before, counts.after, miou, seed=seed).as_json(),
    }


def _keep_classes(label_IJ: UInt8[np.ndarray, "I J"], classes: Sequence[int]) -> UInt8[np.ndarray, "I J"]:
    kept = np.isin(label_IJ, [*classes, IGNORE]) if classes else np.ones_like(label_IJ, bool)
    return np.where(kept, label_IJ, np.uint8(BACKGROUND))
