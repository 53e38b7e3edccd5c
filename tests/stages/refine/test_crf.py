"""Dense CRF: exactly what pydensecrf gives when it is called as the sources call it, and the same everywhere."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.single_refinement import crf_labels, crf_scores
from maskmill.manifests.errors import ConfigError
from maskmill.stages.refine import crf as crf_module
from maskmill.stages.refine.crf import PictureCrf, require_crf
from maskmill.stages.refine.presets import CrfPreset, find_crf_preset

densecrf: Any = pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
crf_utils: Any = pytest.importorskip("pydensecrf.utils", exc_type=ImportError)

IRN, CLIP_ES, TOCO_CAM = find_crf_preset("irn"), find_crf_preset("clip-es"), find_crf_preset("toco-cam")


def picture(seed: int = 0) -> np.ndarray:
    """37 × 53 pixels: a bright disc and a bar on a noisy ground."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:37, :53]
    picture_HW3 = np.full((37, 53, 3), (40, 80, 60))
    picture_HW3[(rows - 16) ** 2 + (columns - 15) ** 2 < 90] = (220, 180, 60)
    picture_HW3[:, 40:47] = (60, 60, 200)
    return np.clip(picture_HW3 + generator.normal(0, 6, (37, 53, 3)), 0, 255).astype(np.uint8)


def rough_labels(seed: int = 0) -> np.ndarray:
    label_HW = np.zeros((37, 53), np.uint8)
    label_HW[8:22, 9:25] = 1
    label_HW[5:30, 38:48] = 2
    flipped = np.random.default_rng(seed).random(label_HW.shape) < 0.08
    return np.where(flipped, (label_HW + 1) % 3, label_HW).astype(np.uint8)


def rough_scores(seed: int = 0) -> np.ndarray:
    scores_LHW = np.stack([rough_labels() == label for label in range(3)]).astype(np.float32)
    return np.clip(0.3 + 0.4 * scores_LHW + np.random.default_rng(seed).normal(0, 0.1, scores_LHW.shape), 0, 1).astype(
        np.float32
    )


def irn_inference_label(img: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """What irn's misc/imutils.py does, in its order."""
    height, width = img.shape[:2]
    model = densecrf.DenseCRF2D(width, height, n_labels)
    unary = crf_utils.unary_from_labels(labels, n_labels, gt_prob=0.7, zero_unsure=False)
    model.setUnaryEnergy(unary)
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(np.copy(img)), compat=10)
    return np.argmax(np.array(model.inference(10)).reshape((n_labels, height, width)), axis=0)


def clip_es_marginals(image: np.ndarray, probmap: np.ndarray) -> np.ndarray:
    """What CLIP-ES' eval_cam_with_crf.py does, in its order."""
    num_labels, height, width = probmap.shape
    unary = np.ascontiguousarray(crf_utils.unary_from_softmax(probmap))
    model = densecrf.DenseCRF2D(width, height, num_labels)
    model.setUnaryEnergy(unary)
    model.addPairwiseGaussian(sxy=1, compat=3)
    model.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image), compat=4)
    return np.array(model.inference(10)).reshape((num_labels, height, width))


ODD = CrfPreset(
    name="odd",
    unary="labels",
    gt_prob=0.5,
    gaussian_sxy=2.0,
    gaussian_compat=1.0,
    bilateral_sxy=7.0,
    bilateral_srgb=11.0,
    bilateral_compat=2.0,
    iterations=2,
    background=IRN.background,
    source="",
)


def test_every_parameter_reaches_pydensecrf() -> None:
    model = densecrf.DenseCRF2D(53, 37, 3)
    model.setUnaryEnergy(crf_utils.unary_from_labels(rough_labels(), 3, gt_prob=0.5, zero_unsure=False))
    model.addPairwiseGaussian(sxy=2, compat=1)
    model.addPairwiseBilateral(sxy=7, srgb=11, rgbim=picture(), compat=2)
    expected_HW = np.argmax(np.array(model.inference(2)).reshape(3, 37, 53), axis=0)
    assert np.array_equal(crf_labels(picture(), rough_labels(), 3, ODD), expected_HW)


@pytest.mark.parametrize(
    "change",
    [
        {"gt_prob": 0.9},
        {"gaussian_sxy": 1.0},
        {"gaussian_compat": 3.0},
        {"bilateral_sxy": 20.0},
        {"bilateral_srgb": 3.0},
        {"bilateral_compat": 6.0},
        {"iterations": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_matters(change: dict[str, Any]) -> None:
    """Or the test above would show nothing."""
    plain_HW = crf_labels(picture(), rough_labels(), 3, ODD)
    assert not np.array_equal(crf_labels(picture(), rough_labels(), 3, replace(ODD, **change)), plain_HW)


def test_labels_are_refined_as_in_irn() -> None:
    refined_HW = crf_labels(picture(), rough_labels(), 3, IRN)
    assert refined_HW.dtype == np.uint8
    assert np.array_equal(refined_HW, irn_inference_label(picture(), rough_labels().astype(np.int64), 3))
    assert not np.array_equal(refined_HW, rough_labels())


def test_a_class_that_no_pixel_has_counts_as_in_irn() -> None:
    refined_HW = crf_labels(picture(), np.minimum(rough_labels(), 1), 4, IRN)
    assert np.array_equal(refined_HW, irn_inference_label(picture(), np.minimum(rough_labels(), 1), 4))


def test_scores_are_refined_as_in_clip_es() -> None:
    marginals_LHW = clip_es_marginals(picture(), rough_scores())
    expected_HW = np.argmax(marginals_LHW, axis=0)
    expected_HW[np.max(marginals_LHW, axis=0) < 0.95] = 255
    refined_HW = crf_scores(picture(), rough_scores(), CLIP_ES)
    assert np.array_equal(refined_HW, expected_HW)
    assert {0, 1, 2, 255} == set(np.unique(refined_HW))
    kept_HW = crf_scores(picture(), rough_scores(), replace(CLIP_ES, ignore_below=None))
    assert np.array_equal(kept_HW, np.argmax(marginals_LHW, axis=0))


def test_scores_of_toco_go_through_a_softmax() -> None:
    exponent_LHW = np.exp(rough_scores())
    probability_LHW = (exponent_LHW / exponent_LHW.sum(axis=0)).astype(np.float32)
    softened_HW = crf_scores(picture(), rough_scores(), TOCO_CAM)
    assert np.array_equal(softened_HW, crf_scores(picture(), probability_LHW, replace(TOCO_CAM, softens=False)))
    assert not np.array_equal(softened_HW, crf_scores(picture(), rough_scores(), replace(TOCO_CAM, softens=False)))


def test_the_sum_of_the_scores_does_not_matter() -> None:
    preset = replace(CLIP_ES, ignore_below=None)
    assert np.array_equal(
        crf_scores(picture(), rough_scores(), preset), crf_scores(picture(), rough_scores() / 2, preset)
    )


def test_one_model_serves_several_label_maps() -> None:
    shared = PictureCrf(picture(), 3, IRN)
    for seed in (1, 2, 1):
        assert np.array_equal(shared.from_labels(rough_labels(seed)), crf_labels(picture(), rough_labels(seed), 3, IRN))


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_label_everywhere_stays(label: int) -> None:
    label_HW = np.full((37, 53), label, np.uint8)
    refined_HW = crf_labels(picture(), label_HW, 3, IRN)
    assert np.array_equal(refined_HW, label_HW)
    assert refined_HW is not label_HW
    assert np.array_equal(irn_inference_label(picture(), label_HW, 3), label_HW)


def test_nothing_known_anywhere_stays_unknown() -> None:
    label_HW = np.full((37, 53), 255, np.uint8)
    assert np.array_equal(crf_labels(picture(), label_HW, 3, IRN), label_HW)


def test_unknown_pixels_are_given_the_label_of_those_that_look_like_them() -> None:
    clean_HW = np.zeros((37, 53), np.uint8)
    rows, columns = np.mgrid[:37, :53]
    clean_HW[(rows - 16) ** 2 + (columns - 15) ** 2 < 90] = 1
    clean_HW[:, 40:47] = 2
    part_HW = clean_HW.copy()
    part_HW[np.random.default_rng(3).random(part_HW.shape) < 0.5] = 255
    assert (crf_labels(picture(), part_HW, 3, IRN) == clean_HW).mean() > 0.99


def test_unknown_pixels_start_with_equal_probabilities() -> None:
    label_HW = rough_labels()
    label_HW[10:14, 5:30] = 255
    unary = crf_utils.unary_from_labels(np.where(label_HW == 255, 0, label_HW), 3, gt_prob=0.7, zero_unsure=False)
    unary[:, label_HW.ravel() == 255] = -np.log(1 / 3)
    model = densecrf.DenseCRF2D(53, 37, 3)
    model.setUnaryEnergy(unary)
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=picture(), compat=10)
    expected_HW = np.argmax(np.array(model.inference(10)).reshape(3, 37, 53), axis=0)
    assert np.array_equal(crf_labels(picture(), label_HW, 3, IRN), expected_HW)


@pytest.mark.parametrize("preset", [IRN, replace(IRN, iterations=0)], ids=["10 iterations", "none"])
def test_any_memory_layout_will_do(preset: CrfPreset) -> None:
    turned = np.ascontiguousarray(picture().transpose(1, 0, 2)).transpose(1, 0, 2)
    wide = np.zeros((37, 106, 3), np.uint8)
    wide[:, ::2] = picture()
    labels_F = np.asfortranarray(rough_labels())
    scores_F = np.asfortranarray(rough_scores())
    for layout in (turned, wide[:, ::2]):
        assert not layout.flags.c_contiguous
        assert np.array_equal(crf_labels(layout, labels_F, 3, preset), crf_labels(picture(), rough_labels(), 3, preset))
        assert np.array_equal(crf_scores(layout, scores_F, CLIP_ES), crf_scores(picture(), rough_scores(), CLIP_ES))


def test_zero_and_one_are_scores() -> None:
    scores_LHW = np.stack([rough_labels() == label for label in range(3)]).astype(np.float32)
    refined_HW = crf_scores(picture(), scores_LHW, find_crf_preset("mctformer-seg"))
    assert set(np.unique(refined_HW)) == {0, 1, 2}


def test_the_smallest_picture_is_refined() -> None:
    assert crf_labels(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8), 2, IRN).shape == (1, 2)


def digest() -> str:
    labels = (crf_labels(picture(), rough_labels(), 3, IRN), crf_scores(picture(), rough_scores(), CLIP_ES))
    return hashlib.sha256(b"".join(label_HW.tobytes() for label_HW in labels)).hexdigest()


def test_the_same_comes_out_whatever_the_number_of_threads() -> None:
    here = digest()
    assert digest() == here
    program = (
        f"import sys; sys.path[:0] = {[str(each) for each in Path(__file__).parents[:3]]!r}; "
        "import test_crf; print(test_crf.digest())"
    )
    for threads in ("1", "3"):
        surroundings = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        answer = subprocess.run(
            [sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == here


def test_nothing_needs_pydensecrf_before_it_is_used() -> None:
    program = (
        "import sys; import maskmill.stages.refine.refinement; "
        "print([name for name in sys.modules if name.startswith('pydensecrf')])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_without_pydensecrf_the_user_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_crf()
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    for use in (require_crf, lambda: crf_labels(picture(), rough_labels(), 3, IRN)):
        with pytest.raises(ConfigError, match=r"pip install 'maskmill\[crf\]'") as refused:
            use()
        assert "pydensecrf.densecrf" in str(refused.value)  # the reason that Python gave
        assert "3.13" not in str(refused.value)


def test_where_it_does_not_compile_the_user_is_told_which_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setattr(crf_module, "PYTHON", (3, 13, 0))
    with pytest.raises(ConfigError, match=r"Python 3\.13.*3\.11.*3\.12"):
        require_crf()
