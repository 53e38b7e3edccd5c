"""From soft maps to a label map: the classes are the user's again, the scores are those of the maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

from builders.single_refinement import (
    SIZE,
    crf_labels,
    crf_scores,
    picture,
    refine_objects,
    refine_picture,
    same,
    soft_maps,
)
from maskmill.manifests.errors import Reason, RowFailed
from maskmill.stages.maps.background_rules import ConstantScore, OwnRow, RowThresholds, TwoScores, parse_background
from maskmill.stages.maps.backgrounds import PictureMaps, hard_labels, soft_scores
from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine.presets import find_crf_preset
from maskmill.stages.refine.refinement import Refined, RefinedClass, Refinement

PLAIN = Refinement(background=RowThresholds())
IRN, CLIP_ES, TOCO_CAM = find_crf_preset("irn"), find_crf_preset("clip-es"), find_crf_preset("toco-cam")


def facts(refined: Refined) -> list[tuple[int, float | None, int]]:
    """Class, score, area; scores rounded to what float32 holds."""
    return [(each.index, each.score and round(each.score, 5), each.area_px) for each in refined.classes]


def test_rows_become_the_classes_that_they_are_of() -> None:
    maps_KHW = np.array([[[0.9, 0.2, 0.7, 0.8]], [[0.1, 0.3, 0.9, 0.8]]], np.float32)
    refined = refine_picture(np.zeros((1, 4, 3), np.uint8), maps_KHW, np.array([0.5, 0.5]), [254, 7], PLAIN)
    assert refined.label_HW.tolist() == [[254, 0, 7, 255]]
    assert refined.label_HW.dtype == np.uint8
    assert facts(refined) == [(7, 0.9, 1), (254, 0.9, 1)]
    assert refined.note == ""


@given(arrays(np.float32, (3, 2, 4), elements=st.integers(0, 4).map(lambda q: q / 4)), st.permutations([4, 200, 9]))
def test_the_order_of_the_rows_does_not_matter(maps_KHW: np.ndarray, classes: list[int]) -> None:
    black, thresholds_K = np.zeros((2, 4, 3), np.uint8), np.array([0.2, 0.5, 0.6])
    refined = refine_picture(black, maps_KHW, thresholds_K, classes, PLAIN)
    turned = refine_picture(black, maps_KHW[::-1], thresholds_K[::-1], classes[::-1], PLAIN)
    assert same(refined, turned)
    for each in refined.classes:
        is_class_HW = refined.label_HW == each.index
        assert each.area_px == is_class_HW.sum()
        if each.area_px:
            assert each.score == pytest.approx(maps_KHW[classes.index(each.index)][is_class_HW].mean())
        else:
            assert each.score is None
    assert (refined.note == "no_foreground") == (not np.isin(refined.label_HW, classes).any())


def test_rows_of_one_class_are_its_instances() -> None:
    maps_KHW = np.array([[[0.9, 0.2, 0.4]], [[0.1, 0.3, 0.4]]], np.float32)
    refined = refine_picture(np.zeros((1, 3, 3), np.uint8), maps_KHW, np.array([0.5, 0.25]), [7, 7], PLAIN)
    assert refined.label_HW.tolist() == [[7, 7, 7]]  # where both have 0.4 no class is tied with another
    assert facts(refined) == [(7, 0.53333, 3)]


@pytest.mark.parametrize("crf", [None, IRN, CLIP_ES])
def test_without_a_class_all_is_background(crf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskmill.stages.refine.refinement.PictureCrf", None)  # is not called
    empty = np.zeros((0, *SIZE), np.float32)
    refined = refine_picture(picture(), empty, np.zeros(0), [], Refinement(background=TwoScores(0.1, 0.3), crf=crf))
    assert not refined.label_HW.any()
    assert (refined.classes, refined.note) == ((), "no_foreground")
    assert refined.label_HW.shape == SIZE


def test_a_class_that_is_nowhere_has_no_score() -> None:
    refined = refine_picture(picture(), soft_maps(2), np.array([0.5, 2.0]), [3, 5], PLAIN)
    assert refined.classes[1] == RefinedClass(5, None, 0)
    assert refined.note == ""


def test_maps_with_a_background_of_their_own() -> None:
    maps_KHW = np.array([[[0.5, 0.1]], [[0.2, 0.6]], [[0.3, 0.3]]], np.float32)
    refinement = Refinement(background=OwnRow())
    refined = refine_picture(np.zeros((1, 2, 3), np.uint8), maps_KHW, np.full(3, np.nan), [0, 9, 4], refinement)
    assert refined.label_HW.tolist() == [[0, 9]]
    assert [each.index for each in refined.classes] == [4, 9]


def test_hard_presets_refine_the_label_map_of_the_rule() -> None:
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    thresholds_K = np.array([0.5, 0.6])
    rows = PictureMaps(soft_maps(), thresholds_K, np.array([2, 1], np.uint8))
    refined = refine_picture(
        picture(), soft_maps(), thresholds_K, [12, 3], Refinement(background=RowThresholds(), crf=IRN)
    )
    local_HW = crf_labels(picture(), hard_labels(rows, RowThresholds()), 3, IRN)
    assert np.array_equal(refined.label_HW, np.array([0, 3, 12], np.uint8)[local_HW])
    assert not np.array_equal(local_HW, hard_labels(rows, RowThresholds()))


@pytest.mark.parametrize("rule", ["rows", "constant:0.6", "power:1"])
def test_soft_presets_refine_the_scores_of_the_rule(rule: str) -> None:
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    thresholds_K, background = np.array([0.5, 0.6]), parse_background(rule)
    rows = PictureMaps(soft_maps(), thresholds_K, np.array([1, 2], np.uint8))
    refined = refine_picture(
        picture(), soft_maps(), thresholds_K, [3, 12], Refinement(background=background, crf=CLIP_ES)
    )
    local_HW = crf_scores(picture(), soft_scores(rows, background), CLIP_ES)
    back = np.full(256, 255, np.uint8)
    back[:3] = [0, 3, 12]
    assert np.array_equal(refined.label_HW, back[local_HW])
    assert len(np.unique(local_HW)) > 1


@pytest.mark.parametrize("preset", [IRN, TOCO_CAM], ids=["irn", "toco-cam"])
def test_two_scores_are_refined_apart_and_joined_as_in_irn(preset) -> None:
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    rows = PictureMaps(soft_maps(), np.zeros(2), np.array([1, 2], np.uint8))

    def refined_level(score: float) -> np.ndarray:
        if preset.unary == "labels":
            return crf_labels(picture(), hard_labels(rows, ConstantScore(score)), 3, preset)
        return crf_scores(picture(), soft_scores(rows, ConstantScore(score)), preset)

    keys = np.array([0, 3, 12])
    certain, possible = keys[refined_level(0.7)], keys[refined_level(0.25)]
    expected = certain.copy()  # step/cam_to_ir_label.py:36-40
    expected[certain == 0] = 255
    expected[possible + certain == 0] = 0
    refinement = Refinement(background=TwoScores(0.25, 0.7), crf=preset)
    refined = refine_picture(picture(), soft_maps(), np.zeros(2), [3, 12], refinement)
    assert np.array_equal(refined.label_HW, expected)
    assert (expected == 255).any()


def test_objects_are_refined_as_one_and_named_afterwards() -> None:
    maps_KHW = np.zeros((2, *SIZE), np.float32)
    maps_KHW[0, 2:8, 2:8] = 0.9
    maps_KHW[1, 12:20, 5:25] = 0.7
    class_maps_KHW = np.zeros((2, *SIZE), np.float32)
    class_maps_KHW[0, :10] = 0.8
    class_maps_KHW[1, 10:] = 0.8
    known = KnownClasses(num_classes=20, image_labels=[3, 12], maps_KHW=class_maps_KHW, map_classes=[3, 12])
    refined = refine_objects(picture(), maps_KHW, np.array([0.5, 0.5]), known, PLAIN)
    expected = np.zeros(SIZE, np.uint8)
    expected[2:8, 2:8] = 3
    expected[12:20, 5:25] = 12
    assert np.array_equal(refined.label_HW, expected)
    assert facts(refined) == [(3, 0.9, 36), (12, 0.7, 160)]


def test_what_is_ignored_of_an_object_stays_ignored() -> None:
    maps_KHW = np.array([[[0.1, 0.5, 0.9]]], np.float32)
    known = KnownClasses(num_classes=20, image_labels=[8])
    refinement = Refinement(background=TwoScores(0.3, 0.7))
    refined = refine_objects(np.zeros((1, 3, 3), np.uint8), maps_KHW, np.zeros(1), known, refinement)
    assert refined.label_HW.tolist() == [[0, 255, 8]]


def test_no_object_is_no_foreground() -> None:
    known = KnownClasses(num_classes=0, image_labels=[])
    refined = refine_objects(picture(), np.zeros((0, *SIZE), np.float32), np.zeros(0), known, PLAIN)
    assert (refined.classes, refined.note) == ((), "no_foreground")
    unnamed = KnownClasses(num_classes=9, image_labels=[1, 2])
    refined = refine_objects(picture(), np.ones((1, *SIZE), np.float32), np.full(1, 0.5), unnamed, PLAIN)
    assert (refined.label_HW == 255).all()
    assert (refined.classes, refined.note) == ((), "no_foreground")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_fails_its_picture(value: float) -> None:
    maps_KHW = soft_maps()
    maps_KHW[1, 3, 3] = value
    with pytest.raises(RowFailed) as failed:
        refine_picture(picture(), maps_KHW, np.full(2, 0.5), [3, 12], PLAIN)
    assert failed.value.reason is Reason.NOT_FINITE
    with pytest.raises(RowFailed):
        refine_picture(picture(), soft_maps(), np.array([0.5, value]), [3, 12], PLAIN)


def test_a_crf_moves_a_blurred_mask_back_to_the_picture(reference: Path) -> None:
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    folder = reference / "data/voc-mini"
    rgb = np.array(Image.open(folder / "JPEGImages/2007_000364.jpg").convert("RGB"))
    truth_HW = np.array(Image.open(folder / "SegmentationClass/2007_000364.png"))
    classes = [14, 15]  # a motorcycle and a person
    maps_KHW = np.stack([gaussian_filter((truth_HW == index).astype(np.float32), 24) for index in classes])
    maps_KHW /= maps_KHW.max(axis=(1, 2), keepdims=True)

    def mean_iou(refinement: Refinement) -> float:
        label_HW = refine_picture(rgb, maps_KHW, np.full(2, 0.5), classes, refinement).label_HW
        judged = truth_HW != 255
        pairs = [((label_HW == index) & judged, (truth_HW == index) & judged) for index in classes]
        return float(np.mean([(one & other).sum() / (one | other).sum() for one, other in pairs]))

    assert mean_iou(replace(PLAIN, crf=find_crf_preset("weaktr-cam-voc"))) > mean_iou(PLAIN) + 0.02
