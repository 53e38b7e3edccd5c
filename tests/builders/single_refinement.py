"""A small picture with soft maps; one picture, label map or set of scores refined as `refine` does with a batch."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine.crf import PictureCrf
from maskmill.stages.refine.presets import CrfPreset
from maskmill.stages.refine.refinement import Refined, Refinement, prepare_objects, prepare_picture, refine_batch

SIZE = (24, 31)


def picture(seed: int = 0) -> np.ndarray:
    """A bright disc and a bluish edge in noise."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    picture_HW3 = np.random.default_rng(seed).integers(20, 50, (*SIZE, 3))
    picture_HW3[(rows - 11) ** 2 + (columns - 9) ** 2 < 50] += 150
    picture_HW3[:, 22:] += np.array([0, 0, 120])
    return picture_HW3.astype(np.uint8)


def soft_maps(num_rows: int = 2, seed: int = 0) -> np.ndarray:
    noise_KHW = np.random.default_rng(seed).random((num_rows, *SIZE))
    smooth_KHW = gaussian_filter(noise_KHW, (0, 3, 3))
    lowest, highest = smooth_KHW.min(axis=(1, 2), keepdims=True), smooth_KHW.max(axis=(1, 2), keepdims=True)
    return ((smooth_KHW - lowest) / (highest - lowest)).astype(np.float32)


def same(one: Refined, other: Refined) -> bool:
    return np.array_equal(one.label_HW, other.label_HW) and (one.classes, one.note) == (other.classes, other.note)


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
