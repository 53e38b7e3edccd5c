"""One picture, one label map or one set of scores, refined as `refine` does with a batch of them."""

from collections.abc import Sequence

import numpy as np

from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine.crf import PictureCrf
from maskmill.stages.refine.presets import CrfPreset
from maskmill.stages.refine.refinement import Refined, Refinement, prepare_objects, prepare_picture, refine_batch


def crf_labels(picture: np.ndarray, label_HW: np.ndarray, num_labels: int, preset: CrfPreset) -> np.ndarray:
    return PictureCrf(picture, num_labels, preset).from_labels(label_HW)


def crf_scores(picture: np.ndarray, score_LHW: np.ndarray, preset: CrfPreset) -> np.ndarray:
    return PictureCrf(picture, len(score_LHW), preset).from_scores(score_LHW)


def refine_picture(
    picture: np.ndarray,
    maps_KHW: np.ndarray,
    thresholds_K: np.ndarray,
    row_classes: Sequence[int],
    refinement: Refinement,
) -> Refined:
    asked = prepare_picture(picture, maps_KHW, thresholds_K, row_classes, refinement.background)
    return refine_batch([asked], refinement)[0]


def refine_objects(
    picture: np.ndarray, maps_KHW: np.ndarray, thresholds_K: np.ndarray, known: KnownClasses, refinement: Refinement
) -> Refined:
    asked = prepare_objects(picture, maps_KHW, thresholds_K, known, refinement.background)
    return refine_batch([asked], refinement)[0]
