"""Which rows are judged, and as what: dropped and failed ones, the ground truth itself, and what was fitted on."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders.configs import make_command, make_config
from builders.mistakes import assert_named
from builders.small_labels import BROKEN, LABELS, MAPS, OPTIONS, MapsConfig, make_images, publish, write_pictures
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
    slow_mious,
    some_of,
)
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids_json
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.errors import InputError
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.evaluate.config import EvaluateConfig
from maskmill.stages.evaluate.stage import STAGE as EVALUATE
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.stage import Findings, Inputs, WholeStage


def test_what_is_dropped_counts_as_background_too(home: Path) -> None:
    """So dropping the hard pictures cannot make all rows look better."""
    publish(home, "ruled", min_score="area>=0.4")
    rows = open_artifact(str(home / "ruled")).rows(["id", "kept"]).to_pylist()
    missing = [row["id"] for row in rows if not row["kept"]]
    assert {BROKEN} < set(missing) < set(LABELS)
    found = metrics_of(home, "ruled")
    pairs = pairs_of(home, "labels")
    nothing = {name: (TRUTH[name], np.zeros_like(TRUTH[name])) for name in missing}
    assert mious(found["lines"][ALL]) == pytest.approx(slow_mious(pairs | nothing))
    assert mious(found["lines"][KEPT]) == pytest.approx(slow_mious(some_of(pairs, *missing)))
    assert found["coverage"] == {
        "rows": len(LABELS),
        "kept": len(LABELS) - len(missing),
        "dropped": len(missing) - 1,
        "failed": 1,
    }
    everything = metrics_of(home, "labels")
    assert [found["lines"][name] for name in FLOORS] == [everything["lines"][name] for name in FLOORS]


def test_a_rule_that_drops_everything_leaves_background_and_floors(home: Path) -> None:
    publish(home, "none-left", min_score="area>=1")
    found = metrics_of(home, "none-left")
    assert list(found["lines"]) == [ALL, *FLOORS]
    nothing = {name: (mask_HW, np.zeros_like(mask_HW)) for name, mask_HW in TRUTH.items()}
    assert mious(found["lines"][ALL]) == pytest.approx(slow_mious(nothing))


# ---- the ground truth in a dataset


def test_the_truth_in_a_dataset_is_not_judged_as_if_it_were_found(home: Path) -> None:
    publish(home, "with-truth", images="truth", ground_truth=["p0", "p4"])
    pairs = pairs_of(home, "labels")
    found = metrics_of(home, "with-truth")
    assert found["coverage"] == {"rows": 6, "kept": 5, "dropped": 0, "failed": 1}
    assert mious(found["lines"][ALL]) == pytest.approx(slow_mious(some_of(pairs, "p0", "p4")))
    flattered = metrics_of(home, "with-truth", include_fitted=True)
    assert flattered["coverage"]["rows"] == len(LABELS)
    perfect = {name: (TRUTH[name], TRUTH[name]) for name in ("p0", "p4")}
    assert mious(flattered["lines"][ALL]) == pytest.approx(slow_mious(pairs | perfect))
    assert found["rows_left_out"] != flattered["rows_left_out"] == "none"


def test_of_the_truth_alone_there_is_nothing_to_judge(home: Path) -> None:
    publish(home, "named", images="truth", ground_truth=["p0"])
    index_truth(home, "named-truth", {"p0": TRUTH["p0"]})
    with pytest.raises(InputError, match=r"/named.*ground truth.*/named-truth"):
        metrics_of(home, "named", "named-truth")
    lines = metrics_of(home, "named", "named-truth", include_fitted=True)["lines"]
    for name in (ALL, KEPT):
        assert (*mious(lines[name]), lines[name]["boundary_f"]["estimate"]) == (1, 1, 1)


def test_truth_in_which_no_class_is_seen_is_truth(home: Path) -> None:
    """No class of the row says where it is from."""
    index_truth(home, "empty-truth", {**TRUTH, WITHOUT_LABEL: np.zeros_like(TRUTH[WITHOUT_LABEL])})
    publish(home, "empty", images="empty-truth", ground_truth=[WITHOUT_LABEL])
    assert metrics_of(home, "empty", "empty-truth")["coverage"]["rows"] == len(LABELS) - 1


# ---- what something was fitted on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig: ...


def fitted(config: NoConfig, inputs: Inputs, underway: Underway) -> Findings:
    """On the labels of one, on the masks of another, and stopped on those of a third."""
    return Findings({"seen.json": training_ids_json(["p4"], [], ["p0"], ["p1"])})


FITTED = WholeStage(command=make_command("fitted", "checkpoint", NoConfig, {}), code_version=1, compute=fitted)
FITTED_MAPS = dataclasses.replace(
    MAPS, command=make_command("fittedmaps", "maps", MapsConfig, {"images": "images", "model": "checkpoint"})
)


@pytest.fixture(scope="module")
def fitted_home(home: Path) -> Path:
    """Maps, labels and a dataset that a checkpoint was needed for."""
    run_whole(FITTED, NoConfig(), {}, str(home / "checkpoint"))
    images = {"images": str(home / "images")}
    maps, model = str(home / "fitted-maps"), {"model": str(home / "checkpoint")}
    run(FITTED_MAPS, MapsConfig(), {**images, **model}, maps, OPTIONS)
    run(REFINE, make_config(RefineConfig), {"maps": maps, **images}, str(home / "fitted-labels"), OPTIONS)
    publish(home, "fitted-dataset", labels="fitted-labels", maps="fitted-maps")
    return home


@pytest.mark.parametrize("predicted", ["fitted-maps", "fitted-labels", "fitted-dataset"])
def test_pictures_whose_masks_were_fitted_on_are_left_out(fitted_home: Path, predicted: str) -> None:
    pairs = pairs_of(fitted_home, "fitted-labels")
    found = metrics_of(fitted_home, predicted)
    assert found["coverage"] == {"rows": 6, "kept": 5, "dropped": 0, "failed": 1}
    assert mious(found["lines"][ALL]) == pytest.approx(slow_mious(some_of(pairs, "p0", "p1")))
    assert [found["lines"][name]["pictures"] for name in FLOORS] == [6, 6]
    flattered = metrics_of(fitted_home, predicted, include_fitted=True)
    assert mious(flattered["lines"][ALL]) == pytest.approx(slow_mious(pairs))
    assert mious(flattered["lines"][DECIDED]) != mious(found["lines"][DECIDED])


@pytest.mark.parametrize("predicted", ["fitted-maps", "fitted-labels", "fitted-dataset"])
@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_checkpoint_that_has_gone_is_told(
    fitted_home: Path, tmp_path: Path, predicted: str, is_made_anew: bool
) -> None:
    """What it was fitted on cannot be left out then, and another in its place says nothing of it."""
    shutil.copytree(fitted_home, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoint")
    if is_made_anew:
        other = dataclasses.replace(
            FITTED, compute=lambda *_: Findings({"seen.json": training_ids_json([], [], ["p2"], [])})
        )
        run_whole(other, NoConfig(), {}, str(tmp_path / "checkpoint"))
    inputs = {"predicted": str(tmp_path / predicted), "images": str(tmp_path / "truth")}
    outcome = run_whole(EVALUATE, make_config(EvaluateConfig, resamples=2), inputs, str(tmp_path / "metrics"))
    (sentence,) = outcome.warnings
    assert_named(sentence, f"{tmp_path}/{predicted} {tmp_path}/checkpoint")
    assert outcome.exit_code == 6
    assert outcome.counts["coverage"]["rows"] == len(LABELS)
    config = make_config(EvaluateConfig, resamples=2, include_fitted=True)
    assert run_whole(EVALUATE, config, inputs, str(tmp_path / "all")).warnings == ()


def test_a_shared_dataset_tells_by_itself_whether_anything_was_fitted(fitted_home: Path, tmp_path: Path) -> None:
    """It comes without what it was made of, and knows its steps."""
    publish(fitted_home, "plain-dataset")
    for name, is_told in {"plain-dataset": False, "fitted-dataset": True}.items():
        home = tmp_path / name
        for each in (name, "truth"):
            shutil.copytree(fitted_home / each, home / each)
        inputs = {"predicted": str(home / name), "images": str(home / "truth")}
        outcome = run_whole(EVALUATE, make_config(EvaluateConfig, resamples=2), inputs, str(home / "metrics"))
        assert bool(outcome.warnings) == is_told


# ---- other pictures


@pytest.mark.parametrize("predicted", ["maps", "labels"])
def test_a_picture_of_another_size_is_refused(home: Path, tmp_path: Path, predicted: str) -> None:
    write_pictures(tmp_path / "pictures", dict(reversed(LABELS.items())))
    others = make_images(tmp_path)
    with pytest.raises(InputError, match=r"p0.*40×24.*40×31"):
        evaluated(home, predicted, str(others))
