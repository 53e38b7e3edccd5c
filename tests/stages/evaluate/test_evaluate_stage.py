"""What label maps are said to be worth: the numbers that a slow count of pixels gives, floors and intervals."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders.small_labels import BROKEN, LABELS
from builders.small_truth import (
    ALL,
    DECIDED,
    FLOORS,
    KEPT,
    TRUTH,
    WITHOUT_LABEL,
    evaluated,
    index_truth,
    metrics_of,
    mious,
    pairs_of,
    slow_ious,
    slow_mious,
    some_of,
    without_class,
)
from maskmill.manifests.artifact.artifact import open_artifact


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("labels", ["labels", "object-labels"])
def test_numbers_are_those_of_a_slow_count(home: Path, labels: str, class_agnostic: bool) -> None:
    found = metrics_of(home, labels, class_agnostic=class_agnostic)
    everything = without_class(pairs_of(home, labels)) if class_agnostic else pairs_of(home, labels)
    kept = some_of(everything, BROKEN)
    assert mious(found["lines"][ALL]) == pytest.approx(slow_mious(everything))
    assert mious(found["lines"][KEPT]) == pytest.approx(slow_mious(kept))
    assert mious(found["lines"][DECIDED]) == pytest.approx(slow_mious(kept, leave_out_undecided=True))
    assert len({mious(found["lines"][name]) for name in (ALL, KEPT, DECIDED)}) == 3
    assert found["coverage"] == {"rows": 8, "kept": 7, "dropped": 0, "failed": 1}
    assert [found["lines"][name]["pictures"] for name in (ALL, KEPT, DECIDED)] == [8, 7, 7]


def test_a_class_that_no_truth_has_is_left_out_of_one_mean(home: Path) -> None:
    cats = {name: np.where(mask_HW == 2, 0, mask_HW).astype(np.uint8) for name, mask_HW in TRUTH.items()}
    line = metrics_of(home, "labels", index_truth(home, "cats", cats).name)["lines"][ALL]
    ious = slow_ious({name: (cats[name], pair[1]) for name, pair in pairs_of(home, "labels").items()})
    assert ious[2] == 0
    assert line["miou"]["estimate"] == pytest.approx((ious[0] + ious[1] + 0) / 3)
    assert line["miou_truth_classes"]["estimate"] == pytest.approx((ious[0] + ious[1]) / 2)
    assert line["miou_truth_classes"]["low"] <= line["miou_truth_classes"]["estimate"]


def test_each_class_has_its_line(home: Path) -> None:
    opened = open_artifact(str(evaluated(home, "labels")))
    rows = pq.read_table(io.BytesIO(opened.file("classes.parquet"))).to_pylist()
    assert {row["result"] for row in rows} == {ALL, KEPT, DECIDED, *FLOORS}
    everything = {row["class"]: row for row in rows if row["result"] == ALL}
    assert {label: row["name"] for label, row in everything.items()} == {0: "background", 1: "cat", 2: "dog"}
    assert {label: row["iou"] for label, row in everything.items()} == pytest.approx(
        slow_ious(pairs_of(home, "labels"))
    )
    for label, row in everything.items():
        assert row["true_pixels"] == sum((mask_HW == label).sum() for mask_HW in TRUTH.values())
        assert (row["boundary_f"] is None) == (label == 0)
        assert 1 / row["iou"] == pytest.approx(1 / row["precision"] + 1 / row["recall"] - 1)


# ---- maps


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize(("maps", "labels"), [("maps", "labels"), ("objects", "object-labels")])
def test_maps_are_judged_as_refine_cuts_them(home: Path, maps: str, labels: str, class_agnostic: bool) -> None:
    cut, refined = (metrics_of(home, name, class_agnostic=class_agnostic) for name in (maps, labels))
    assert cut["lines"] == refined["lines"]
    assert cut["coverage"] == refined["coverage"]
    assert (cut["judged"], refined["judged"]) == ("maps", "labels")


@pytest.mark.parametrize("predicted", ["maps", "labels"])
def test_a_picture_of_which_nothing_was_known_is_undecided(home: Path, predicted: str) -> None:
    alone = index_truth(home, f"{predicted}-alone", {WITHOUT_LABEL: TRUTH[WITHOUT_LABEL]})
    found = metrics_of(home, predicted, alone.name)
    assert found["coverage"] == {"rows": 1, "kept": 1, "dropped": 0, "failed": 0}
    assert mious(found["lines"][KEPT]) == (0, 0)
    assert mious(found["lines"][DECIDED]) == (None, None)


def test_the_sweep_scores_maps_as_if_they_were_cut_at_each_threshold(home: Path) -> None:
    """Of pictures that have maps. It says that it has seen the truth, and labels have none."""
    sweep = metrics_of(home, "maps")["threshold_sweep"]
    with_maps = some_of(pairs_of(home, "labels"), BROKEN, WITHOUT_LABEL)
    assert sweep["miou"][sweep["thresholds"].index(0.5)] == pytest.approx(slow_mious(with_maps)[0])
    best = sweep["thresholds"][int(np.argmax(sweep["miou"]))]
    assert sweep["best"] == {"threshold": best, "miou": max(sweep["miou"])}
    assert sweep["chosen_on"] == "ground truth"
    assert "threshold_sweep" not in metrics_of(home, "labels")


def test_the_best_threshold_of_each_class_is_an_option_of_refine(home: Path) -> None:
    """Not for objects, which have no class to be cut by, and not without regard to class."""
    sweep = metrics_of(home, "maps")["threshold_sweep"]
    assert [(row["class"], row["name"]) for row in sweep["classes"]] == [(1, "cat"), (2, "dog")]
    assert all(0 < row["iou"] <= 1 for row in sweep["classes"])
    thresholds = [f"--threshold {row['name']}={row['threshold']}" for row in sweep["classes"]]
    assert sweep["refine_options"] == " ".join(thresholds)
    for asked in ({"predicted": "objects"}, {"predicted": "maps", "class_agnostic": True}):
        assert "refine_options" not in metrics_of(home, **asked).get("threshold_sweep", {})


# ---- floors and intervals


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_floors_are_of_the_same_pictures_whatever_is_judged(home: Path, class_agnostic: bool) -> None:
    found = [metrics_of(home, name, class_agnostic=class_agnostic)["lines"] for name in ("maps", "object-labels")]
    assert [list(lines) for lines in found] == [[ALL, KEPT, DECIDED, *FLOORS]] * 2
    for name in FLOORS:
        assert found[0][name] == found[1][name]
        assert found[0][name]["pictures"] == len(LABELS)
    if class_agnostic:
        painted = without_class({name: (mask_HW, np.ones_like(mask_HW)) for name, mask_HW in TRUTH.items()})
        assert mious(found[0][FLOORS[0]]) == pytest.approx(slow_mious(painted))


def test_outlines_are_judged_where_wanted(home: Path) -> None:
    with_outlines, without = metrics_of(home, "labels"), metrics_of(home, "labels", boundary=False)
    assert [name for name, line in with_outlines["lines"].items() if "boundary_f" in line] == [ALL, KEPT, *FLOORS]
    assert with_outlines["lines"][FLOORS[0]]["boundary_f"]["estimate"] == 0  # the picture's edge is no outline
    assert not [name for name, line in without["lines"].items() if "boundary_f" in line]
    assert {name: mious(line) for name, line in without["lines"].items()} == {
        name: mious(line) for name, line in with_outlines["lines"].items()
    }


def test_intervals_are_around_the_estimates_and_the_same_again(home: Path) -> None:
    first, again, other = (evaluated(home, "maps", seed=seed) for seed in (3, 3, 4))
    for name in ("metrics.json", "classes.parquet"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "metrics.json").read_bytes() != (other / "metrics.json").read_bytes()
    assert (first / "classes.parquet").read_bytes() == (other / "classes.parquet").read_bytes()
    found, drawn_else = (metrics_of(home, "maps", seed=seed)["lines"] for seed in (3, 4))
    for name, line in found.items():
        assert mious(line) == mious(drawn_else[name])
        for interval in (line["miou"], line["miou_foreground"]):
            assert 0 <= interval["low"] < interval["estimate"] < interval["high"] <= 1
            assert interval["level"] == 0.95


def test_of_a_single_picture_every_resample_is_the_picture(home: Path) -> None:
    line = metrics_of(home, "labels", index_truth(home, "single", {"p0": TRUTH["p0"]}).name)["lines"][ALL]
    assert line["pictures"] == 1
    assert line["miou"]["low"] == line["miou"]["estimate"] == line["miou"]["high"]
