"""What few-shot answers are judged on, and held against: folds of the benchmarks, and the published tables."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.configs import make_config
from builders.small_voc import write_voc
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.datasets.fold_lists import read_fold
from maskmill.manifests.datasets.layouts import VocSource
from maskmill.manifests.errors import ConfigError, InputError
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.evaluate.few_shot_config import FewShotConfig
from maskmill.stages.evaluate.few_shot_tables import comparison
from maskmill.stages.evaluate.folds import base_episodes, benchmark_fold, episode_ids, refuse_missing_masks
from maskmill.stages.evaluate.published_scores import find_published_scores
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.scores.truth import GroundTruth


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("voc")
    write_voc(home)
    return home


def indexed(home: Path, out: str, folds: tuple[int, ...] = (0, 1, 2, 3)) -> Artifact:
    listed = home / f"{out}.txt"
    listed.write_text("".join((home / f"splits/val/fold{fold}.txt").read_text() for fold in folds))
    source = VocSource(root=str(home / "VOC2012"), list_file=str(listed), masks="SegmentationClassAug")
    run(INDEX, IndexConfig(source=source), {}, str(home / out), RunOptions())
    return open_artifact(str(home / out), "images")


def test_a_fold_asks_the_published_episodes(reference: Path, voc: Path) -> None:
    """They follow from the lists: of the pictures only the class table is looked at."""
    images = indexed(voc, "table")
    for way in (1, 2):
        lists = read_fold("pascal-5i", str(reference / "splits/pascal"), 1, "novel")
        fold = benchmark_fold("pascal-5i", 1, lists, images, way, 1, 1000)
        golden = json.loads((reference / f"golden/episodes/pascal_{way}w1s_fold1.json").read_text())
        found = [[each.query, list(each.classes), [list(one) for one in each.supports]] for each in fold.episodes]
        assert found == [each[:3] for each in golden]
        assert fold.classes == (6, 7, 8, 9, 10)
        assert fold.base == (*range(1, 6), *range(11, 21))


def test_every_picture_of_the_episodes_must_be_there(voc: Path) -> None:
    lists = read_fold("pascal-5i", str(voc / "splits"), 0, "novel")
    images = indexed(voc, "some", folds=(1, 2))
    fold = benchmark_fold("pascal-5i", 0, lists, images, 1, 1, 20)
    with pytest.raises(InputError, match=r"episode 0.*fold 0.*'2008_\d+'.*some"):
        refuse_missing_masks(fold, GroundTruth(images, "--images"), images)
    whole = indexed(voc, "whole")
    refuse_missing_masks(fold, GroundTruth(whole, "--images"), whole)


def test_a_mask_that_is_void_alone_is_refused(voc: Path) -> None:
    images = indexed(voc, "void")
    truth = GroundTruth(images, "--images")
    fold = benchmark_fold("pascal-5i", 0, read_fold("pascal-5i", str(voc / "splits"), 0, "novel"), images, 1, 1, 9)
    known, query = truth.mask, fold.episodes[3].query
    truth.mask = lambda identifier: np.full_like(known(identifier), 255 if identifier == query else 1)  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"mask.*'{query}'.*void"):
        refuse_missing_masks(fold, truth, images)


def test_images_of_another_class_table_are_refused(voc: Path) -> None:
    """Fold lists give numbers, which mean what the benchmark's table says."""
    images = indexed(voc, "renamed")
    facts = {**images.plan.facts, "classes": [{"index": 1, "name": "zebra", "source_id": "1"}]}
    others = dataclasses.replace(images, plan=dataclasses.replace(images.plan, facts=facts))
    lists = read_fold("pascal-5i", str(voc / "splits"), 0, "novel")
    with pytest.raises(InputError, match=r"1.*zebra.*aeroplane.*pascal-5i.*`mask"):
        benchmark_fold("pascal-5i", 0, lists, others, 1, 1, 5)


def test_the_floor_is_chosen_without_any_picture_that_shows_a_class_judged() -> None:
    labels = {"a": (1,), "b": (1,), "c": (1, 9), "d": (2,), "e": (2,), "f": (3,)}
    found = base_episodes((1, 2, 3), labels, (9,), 1, 50)
    assert {each for one in found for each in episode_ids(one)} == {"a", "b", "d", "e"}  # 3 has one picture
    assert base_episodes((3,), labels, (9,), 1, 50) == []


def few_shot_config(**more: Any) -> FewShotConfig:
    benchmark: dict[str, Any] = {"protocol": "pascal-5i", "fold": (3, 1, 0, 2), "folds": "lists"}
    config: FewShotConfig = make_config(FewShotConfig, **benchmark | more)
    return config


def test_published_scores_are_those_of_what_was_asked() -> None:
    found = find_published_scores(few_shot_config(), ["pseudo"] * 4)
    assert found is not None
    assert (found.exact_ratio, found.miou) == pytest.approx((0.799, 0.332))
    found = find_published_scores(few_shot_config(protocol="coco-20i", way=2, support_mask="gt"), [])
    assert found is not None
    assert (found.exact_ratio, found.miou) == pytest.approx((0.640, 0.362))
    line = {"name": "learner", "exact_ratio": {"estimate": 0.6}, "miou": {"estimate": None}}
    told = comparison(found, [line])
    assert told["exact_ratio"]["difference"] == pytest.approx(-0.04)
    assert told["miou"]["difference"] is None


@pytest.mark.parametrize(
    "other",
    [
        {"shot": 5},
        {"way": 3},
        {"episodes": 999},
        {"fold": (0, 1, 2)},
        {"fold": (0, 1, 2, 2)},
        {"void": "ignore"},
        {"support_mask": "enhanced"},
        {"protocol": "classes", "fold": (), "folds": ""},
    ],
)
def test_anything_else_is_held_against_nothing(other: dict[str, object]) -> None:
    assert find_published_scores(few_shot_config(**other), ["pseudo"]) is None


def test_supervision_that_was_not_published_is_held_against_nothing() -> None:
    assert find_published_scores(few_shot_config(), ["pseudo", "mixed"]) is None
    assert find_published_scores(few_shot_config(support_mask="gt"), ["pseudo"]) is None
    assert find_published_scores(few_shot_config(support_mask="gt"), ["mask"]) is not None


def test_options_that_cannot_work_are_refused(voc: Path) -> None:
    with pytest.raises(ConfigError, match=r"protocol.*voc.*classes.*pascal-5i"):
        make_config(FewShotConfig, files=[""], protocol="voc")
    with pytest.raises(ConfigError, match=r"shot.*0.*1"):
        make_config(FewShotConfig, files=[""], shot=0)
    with pytest.raises(ConfigError, match="checkpoint"):
        make_config(FewShotConfig, {"tokens": indexed(voc, "refused")}, files=["/nowhere/best.ckpt"], classes=[["a"]])
