"""PAR and the guided filter as refiners: what is smoothed, what becomes of ties and of 255, alone and together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

from builders.single_refinement import SIZE, picture, refine_objects, refine_picture, same, soft_maps
from maskmill.manifests.errors import EnvironmentFault, Reason, RowFailed
from maskmill.stages.maps.background_rules import ConstantScore, OwnRow, RowThresholds, TwoScores, parse_background
from maskmill.stages.maps.backgrounds import PictureMaps, soft_scores
from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine import batches, smoothing
from maskmill.stages.refine.batches import refine_in_batches
from maskmill.stages.refine.guided import guided_filter
from maskmill.stages.refine.par import pixel_adaptive_scores
from maskmill.stages.refine.presets import MEASURED, GuidedPreset, Smoother, find_par_preset
from maskmill.stages.refine.refinement import Refined, Refinement, Unrefined, prepare_picture, refine_batch
from maskmill.stages.refine.smoothing import smooth_scores

PAR, GUIDED = find_par_preset("toco"), GuidedPreset(4, 1e-3)
both = pytest.mark.parametrize("smoother", [PAR, GUIDED], ids=["par", "guided"])


def smooth(picture_HW3: np.ndarray, scores_LHW: np.ndarray, smoother: Smoother) -> np.ndarray:
    """Through the filters themselves."""
    pictures, scores = torch.from_numpy(picture_HW3).permute(2, 0, 1)[None], torch.from_numpy(scores_LHW)[None]
    if isinstance(smoother, GuidedPreset):
        return guided_filter(pictures, scores, smoother)[0].numpy()
    return pixel_adaptive_scores(pictures, scores[:, None], smoother)[0, 0].numpy()


@both
@pytest.mark.parametrize("rule", ["rows", "constant:0.6", "power:1"])
def test_the_highest_of_the_smoothed_scores_wins(smoother: Smoother, rule: str) -> None:
    """The background's score is one of them."""
    thresholds_K, background = np.array([0.5, 0.6]), parse_background(rule)
    found = refine_picture(
        picture(), soft_maps(), thresholds_K, [12, 3], Refinement(background=background, smoother=smoother)
    )
    rows = PictureMaps(soft_maps(), thresholds_K, np.array([2, 1], np.uint8))
    scores_LHW = smooth(picture(), soft_scores(rows, background), smoother)
    assert np.array_equal(found.label_HW, np.array([0, 3, 12], np.uint8)[scores_LHW.argmax(axis=0)])
    assert len(np.unique(found.label_HW)) == 3
    for each in found.classes:
        map_HW = soft_maps()[[12, 3].index(each.index)]
        assert each.score == pytest.approx(float(map_HW[found.label_HW == each.index].mean()))


@both
def test_two_background_scores_are_refined_apart_and_joined_as_under_the_crf(smoother: Smoother) -> None:
    rows, keys = PictureMaps(soft_maps(), np.zeros(2), np.array([1, 2], np.uint8)), np.array([0, 3, 12])
    scores = {s: smooth(picture(), soft_scores(rows, ConstantScore(s)), smoother) for s in (0.5, 0.6)}
    certain, possible = keys[scores[0.6].argmax(axis=0)], keys[scores[0.5].argmax(axis=0)]
    expected = certain.copy()  # utils/camutils.py of AFA and ToCo, as step/cam_to_ir_label.py of irn
    expected[certain == 0] = 255
    expected[possible + certain == 0] = 0
    refinement = Refinement(background=TwoScores(0.5, 0.6), smoother=smoother)
    found = refine_picture(picture(), soft_maps(), np.zeros(2), [3, 12], refinement)
    assert np.array_equal(found.label_HW, expected)
    assert set(np.unique(expected)) == {0, 3, 12, 255}


@both
def test_classes_that_cannot_be_told_apart_stay_undecided(smoother: Smoother) -> None:
    """As without a refiner: equal maps stay equal to the last bit."""
    maps_KHW = np.repeat(soft_maps(1), 2, axis=0)
    refinement = Refinement(background=ConstantScore(0.4), smoother=smoother)
    found = refine_picture(picture(), maps_KHW, np.zeros(2), [3, 12], refinement)
    assert set(np.unique(found.label_HW)) == {0, 255}
    assert found.note == "no_foreground"


@both
def test_objects_without_class_are_refined_as_one_and_named_afterwards(smoother: Smoother) -> None:
    refinement = Refinement(background=RowThresholds(), smoother=smoother)
    known = KnownClasses(num_classes=20, image_labels=[8])
    found = refine_objects(picture(), soft_maps(1), np.full(1, 0.5), known, refinement)
    as_class = refine_picture(picture(), soft_maps(1), np.full(1, 0.5), [8], refinement)
    assert same(found, as_class)
    assert set(np.unique(found.label_HW)) == {0, 8}


@both
def test_maps_with_a_background_of_their_own(smoother: Smoother) -> None:
    refinement = Refinement(background=OwnRow(), smoother=smoother)
    found = refine_picture(picture(), soft_maps(3), np.full(3, np.nan), [0, 9, 4], refinement)
    scores_LHW = smooth(picture(), soft_maps(3)[[0, 2, 1]], smoother)
    assert np.array_equal(found.label_HW, np.array([0, 4, 9], np.uint8)[scores_LHW.argmax(axis=0)])


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_the_smallest_pictures_are_refined(smoother: Smoother, size: tuple[int, int]) -> None:
    for value in (0.2, 0.9):
        maps_KHW = np.full((1, *size), value, np.float32)
        for rule in ("rows", "two:0.3,0.7"):
            refinement = Refinement(background=parse_background(rule), smoother=smoother)
            found = refine_picture(np.full((*size, 3), 77, np.uint8), maps_KHW, np.full(1, 0.5), [4], refinement)
            assert (found.label_HW == (4 if value > 0.5 else 0)).all(), "nothing around it says otherwise"


@both
def test_no_map_is_no_foreground_and_a_map_that_is_not_finite_fails(smoother: Smoother) -> None:
    refinement = Refinement(background=RowThresholds(), smoother=smoother)
    found = refine_picture(picture(), np.zeros((0, *SIZE), np.float32), np.zeros(0), [], refinement)
    assert not found.label_HW.any()
    maps_KHW = soft_maps()
    maps_KHW[1, 3, 3] = np.nan
    with pytest.raises(RowFailed) as failed:
        refine_picture(picture(), maps_KHW, np.full(2, 0.5), [3, 12], refinement)
    assert failed.value.reason is Reason.NOT_FINITE


# ---- several pictures


def asked(number: int, size: tuple[int, int] = SIZE, num_rows: int = 2) -> Unrefined:
    maps_KHW = soft_maps(num_rows, seed=number)[:, : size[0], : size[1]]
    pixels_HW3 = picture(number)[: size[0], : size[1]]
    return prepare_picture(pixels_HW3, maps_KHW, np.full(num_rows, 0.5), [3, 12, 7][:num_rows], RowThresholds())


@both
def test_a_picture_does_not_depend_on_those_beside_it(smoother: Smoother) -> None:
    refinement = Refinement(background=RowThresholds(), smoother=smoother)
    pictures = [asked(number) for number in range(3)]
    together = refine_batch(pictures, refinement)
    for one, each in zip(pictures, together, strict=True):
        assert same(each, refine_batch([one], refinement)[0])
    assert not same(together[0], together[1])


def test_on_a_gpu_pictures_of_one_shape_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grouping alone: what would run there runs here on the CPU."""
    groups: list[list[tuple[int, ...]]] = []

    def on_the_cpu(pictures: Sequence[Unrefined], refinement: Refinement) -> list[Refined]:
        groups.append([each.shape for each in pictures])
        return refine_batch(pictures, Refinement(background=refinement.background, smoother=refinement.smoother))

    monkeypatch.setattr(batches, "refine_batch", on_the_cpu)
    shapes = [(SIZE, 2), ((10, 9), 2), (SIZE, 2), (SIZE, 1), ((10, 9), 2), (SIZE, 2)]
    pictures = [asked(number, *shape) for number, shape in enumerate(shapes)]
    failed, known = RowFailed(Reason.CHANGED), Refined(np.zeros((1, 1), np.uint8), ())
    everything: list[tuple[int, Unrefined | Refined | RowFailed]] = [*enumerate(pictures), (6, failed), (7, known)]

    def run(device: str) -> dict[int, Refined | RowFailed]:
        groups.clear()
        refinement = Refinement(background=RowThresholds(), smoother=GUIDED, device=device)
        return dict(refine_in_batches(everything, refinement))

    alone = run("cpu")
    assert [len(group) for group in groups] == [1] * 6
    together = run("cuda")
    assert [len(group) for group in groups] == [3, 2, 1]
    monkeypatch.setattr(batches, "VALUES_AT_ONCE", 2 * 3 * SIZE[0] * SIZE[1])
    bounded = run("cuda:1")
    assert [len(group) for group in groups] == [2, 1, 1, 1, 1]
    for found in (together, bounded):
        assert sorted(found) == list(range(8))
        assert (found[6], found[7]) == (failed, known)
        for number in range(6):
            one, other = found[number], alone[number]
            assert isinstance(one, Refined)
            assert isinstance(other, Refined)
            assert same(one, other)


def test_a_device_that_is_too_small_for_a_batch_does_its_pictures_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tried = smoothing._smooth_together, []

    def small_device(pictures: Sequence[np.ndarray], *rest: object) -> list[np.ndarray]:
        tried.append(len(pictures))
        if len(pictures) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pictures, *rest)  # type: ignore[arg-type]

    pictures = [picture(number) for number in range(2)]
    scores = [soft_maps(2, number)[None] for number in range(2)]
    expected = smooth_scores(pictures, scores, GUIDED, "cpu")
    monkeypatch.setattr(smoothing, "_smooth_together", small_device)
    found = smooth_scores(pictures, scores, GUIDED, "cpu")
    assert tried == [2, 1, 1]
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_device_that_is_too_small_for_a_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> list[np.ndarray]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(smoothing, "_smooth_together", no_room)
    with pytest.raises(EnvironmentFault, match=r"cuda.*31×24.*--dev"):
        smooth_scores([picture()], [soft_maps()[None]], PAR, "cuda")


# ---- pictures as they are


@pytest.mark.parametrize("smoother", [PAR, MEASURED], ids=["par", "guided"])
def test_a_blurred_mask_moves_back_to_the_picture(reference: Path, smoother: Smoother) -> None:
    """An aeroplane in the sky; in front of a ground as colourful as the object, refining does not help."""
    folder = reference / "data/voc-mini"
    rgb = np.array(Image.open(folder / "JPEGImages/2007_000243.jpg").convert("RGB"))
    truth_HW = np.array(Image.open(folder / "SegmentationClass/2007_000243.png"))
    map_HW = gaussian_filter((truth_HW == 1).astype(np.float32), 24)
    map_HW /= map_HW.max()

    def iou(refinement: Refinement) -> float:
        label_HW = refine_picture(rgb, map_HW[None], np.full(1, 0.5), [1], refinement).label_HW
        judged = truth_HW != 255
        one, other = (label_HW == 1) & judged, (truth_HW == 1) & judged
        return float((one & other).sum() / (one | other).sum())

    plain = Refinement(background=RowThresholds())
    assert iou(Refinement(background=RowThresholds(), smoother=smoother)) > iou(plain) + 0.1
