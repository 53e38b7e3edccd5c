"""Pretraining as a user meets it: from stored pictures to a checkpoint that extraction takes."""

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from builders import small_runs
from builders.configs import make_config
from builders.small_dataset import tree, write_dataset
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids
from maskmill.manifests.errors import ConfigError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.learning import loop
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS
from maskmill.stages.pretrain.config import PretrainConfig
from maskmill.stages.pretrain.network import Network
from maskmill.stages.pretrain.stage import METRICS, STAGE
from maskmill.stages.pretrain.teaching import Teaching
from maskmill.stages.pretrain.watching import collapse_warning, nearest_centroid

BACKBONE = "test_vit.r160_in1k"  # patches of 16 pixels
PICTURES, BATCH = 26, 8  # in two classes; three steps an epoch
CLUSTERS = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pretrain")
    small_runs.index(write_dataset(home / "pictures", PICTURES), home / "images")
    run(PIXELS, PixelsConfig(image_size=(40, 40)), {"images": str(home / "images")}, str(home / "pixels"))
    return home


def config(**asked: Any) -> PretrainConfig:
    small = {"global_size": 32, "local_size": 16, "local_views": 2, "clusters": CLUSTERS, "hidden": 24}
    return make_config(
        PretrainConfig, backbone=BACKBONE, **{**small, "epochs": 2, "warmup": 0, "batch": BATCH, "seed": 3, **asked}
    )


def pretrain(home: Path, out: Path, **asked: Any) -> Outcome:
    inputs = {"pixels": str(home / "pixels"), "images": str(home / "images")}
    return run_whole(STAGE, config(**asked), inputs, str(out))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_artifact(str(out)).file(METRICS).splitlines()]


def weights(out: Path) -> Mapping[str, torch.Tensor]:
    return load(open_artifact(str(out)).file("weights.safetensors"))


def test_a_checkpoint_that_extraction_takes(home: Path, tmp_path: Path) -> None:
    made = pretrain(home, tmp_path / "checkpoint")
    assert made.counts == {"kind": "backbone", "backbone": BACKBONE, "pictures": PICTURES, "steps": 6}
    assert verify(str(tmp_path / "checkpoint")).exit_code == 0
    checkpoint = open_artifact(str(tmp_path / "checkpoint"), "checkpoint")
    assert training_ids(checkpoint, "labels") == training_ids(checkpoint, "masks") == frozenset()
    extracting = make_config(
        ExtractConfig, backbone=BACKBONE, weights=str(tmp_path / "checkpoint"), image_size=(48, 32)
    )
    run(EXTRACT, extracting, {"images": str(home / "images")}, str(tmp_path / "tokens"))
    source = open_artifact(str(tmp_path / "tokens")).plan.facts["weights"]["source"]
    assert source == f"checkpoint {checkpoint.plan.fingerprint[:12]}"
    assert pretrain(home, tmp_path / "checkpoint").units_run == 0


@pytest.mark.parametrize("stopped", [0, 2, 5])
def test_stopped_by_ctrl_c_and_gone_on_with_it_is_the_same(
    home: Path, tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(home, home / "never") if not (home / "never").exists() else None
    losses = Teaching.losses

    def interrupted(self: Teaching, step: int, pictures: Any) -> Any:
        if step == stopped:
            raise KeyboardInterrupt
        return losses(self, step, pictures)

    monkeypatch.setattr(Teaching, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(home, home / tmp_path.name)
    with pytest.raises(StaleArtifact, match=r"avoidance.*centering.*sinkhorn"):
        pretrain(home, home / tmp_path.name, avoidance="sinkhorn")
    done: list[int] = []

    def noted(self: Teaching, step: int, pictures: Any) -> Any:
        done.append(step)
        return losses(self, step, pictures)

    monkeypatch.setattr(Teaching, "losses", noted)
    pretrain(home, home / tmp_path.name)
    assert done == list(range(stopped, 6))
    assert tree(home / tmp_path.name) == tree(home / "never")


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ("contrastive", {"contrastive"}),
        ("reconstruction", {"reconstruction"}),
        ("cls,patch", {"cls", "patch"}),
        ("patch:0.5,reconstruction:2,cls:0", {"patch", "reconstruction"}),
    ],
)
def test_each_family_is_an_option_apart(home: Path, tmp_path: Path, losses: str, told: set[str]) -> None:
    pretrain(home, tmp_path / "out", losses=losses, epochs=1)
    asked = config(losses=losses).weights
    for line in metrics(tmp_path / "out"):
        assert {name for name in line if name in ("cls", "patch", "reconstruction", "contrastive")} == told
        assert line["loss"] == pytest.approx(sum(asked[name] * line[name] for name in told), rel=1e-5)
    watched = {name for name in ("cls", "patch") if f"{name} entropy" in metrics(tmp_path / "out")[-1]}
    assert watched == {"cls", "patch"} & told


@pytest.mark.parametrize("avoidance", ["centering", "sinkhorn", "me-max", "sinkhorn+me-max"])
@pytest.mark.parametrize("patches", ["all", "masked"])
def test_every_way_of_avoiding_collapse(home: Path, tmp_path: Path, avoidance: Any, patches: Any) -> None:
    pretrain(home, tmp_path / "out", avoidance=avoidance, patches=patches, epochs=1, align=0)
    last = metrics(tmp_path / "out")[-1]
    assert ("me-max cls" in last, "me-max patch" in last) == (avoidance.endswith("me-max"),) * 2
    for name in ("cls", "patch"):
        assert 0 <= last[f"{name} information"] <= last[f"{name} entropy"] <= math.log(CLUSTERS) + 1e-5
        assert 1 <= last[f"{name} active"] <= CLUSTERS
        assert 1 / CLUSTERS <= last[f"{name} highest"] <= 1


def test_reconstruction_is_learned(home: Path, tmp_path: Path) -> None:
    asked = {"losses": "reconstruction", "epochs": 20, "learning_rate": 0.03, "warmup": 2, "align": 0}
    pretrain(home, tmp_path / "out", **asked)
    lines = metrics(tmp_path / "out")
    first, last = (np.mean([line["reconstruction"] for line in some]) for some in (lines[:9], lines[-9:]))
    assert last < 0.9 * first


def test_what_is_kept_is_the_teacher_which_moves_little(home: Path, tmp_path: Path) -> None:
    """With momentum 1 it does not move at all, and the seed alone tells its weights."""
    for name, asked in (("still", {"momentum": 1.0}), ("longer", {"momentum": 1.0, "epochs": 1}), ("moved", {})):
        pretrain(home, tmp_path / name, **asked)
    still, longer, moved = (weights(tmp_path / name) for name in ("still", "longer", "moved"))
    assert all(torch.equal(still[name], longer[name]) for name in still)
    largest = max(float((still[name] - moved[name]).abs().max()) for name in still)
    assert 0 < largest < 1e-3


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"batch": 27}, "26.*27.*batch"),
        ({"global_size": 48}, "global.size.*48.*40"),
        ({"local_size": 24}, "local.size.*24.*test_vit.r160_in1k.*16"),
        ({"losses": "cls,mim"}, "losses.*'cls,mim'.*cls, patch, reconstruction, contrastive"),
        ({"losses": "cls:0"}, "losses.*'cls:0'.*0"),
        ({"epochs": 0}, "epochs.*0.*1"),
        ({"clusters": 1}, "clusters.*1.*2"),
        ({"warmup": 2}, "warmup.*2.*epochs.*2"),
        ({"align": 5}, "align.*5.*32"),
        ({"learning_rate": math.inf}, "learning.rate.*inf"),
        ({"device": "cuda:99"}, "device.*cuda"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    home: Path, tmp_path: Path, asked: Mapping[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        pretrain(home, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_collapse_is_told_within_an_epoch(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose every token is the same."""
    caplog.set_level(logging.INFO, logger="maskmill")
    tokens = Network.tokens
    monkeypatch.setattr(Network, "tokens", lambda self, some: 0.0 * tokens(self, some) + 1.0)
    made = pretrain(home, tmp_path / "out", losses="cls", epochs=2)
    assert made.exit_code == 6
    sentence = r".*cls 0\.00 of 2\.77.*1 .*of 16"
    assert re.search(sentence, made.warnings[0])
    assert re.search(f"after step 2, {sentence}", caplog.text)
    assert "epoch 1 of 2: loss " in caplog.text


def test_the_sentence_of_a_collapse() -> None:
    asked = config(clusters=8)
    healthy = {
        f"{name} {key}": value for name in ("cls", "patch") for key, value in (("information", 1.0), ("active", 8))
    }
    assert collapse_warning(asked, healthy) == collapse_warning(config(losses="contrastive"), {}) == ""
    told = collapse_warning(asked, {**healthy, "patch information": 0.01, "patch active": 3})
    assert "(patch 0.01 of 2.08 nats, 3 clusters of 8 in use)" in told


def test_nearest_centroid_by_hand() -> None:
    """Five of each class teach; of the rest one of class 2 lies with class 1. Class 3 has too few, 0 is no class."""
    east, north = [1.0, 0.0], [0.0, 1.0]
    features = torch.tensor([east] * 6 + [north] * 6 + [east] * 2 + [north])
    classes = torch.tensor([1] * 6 + [2] * 5 + [3] + [2, 0] + [2])
    assert nearest_centroid(features, classes) == pytest.approx(2 / 3)
    assert nearest_centroid(features[:6], classes[:6]) is None


def test_batches_are_every_picture_once_but_the_rest(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY_S", math.inf)
    seen: list[bytes] = []
    losses = Teaching.losses

    def noted(self: Teaching, step: int, pictures: Any) -> Any:
        seen.extend(each.numpy().tobytes() for each in pictures)
        return losses(self, step, pictures)

    monkeypatch.setattr(Teaching, "losses", noted)
    pretrain(home, tmp_path / "out", losses="reconstruction")
    assert len(seen) == 48
    assert [len(set(epoch)) for epoch in (seen[:24], seen[24:])] == [24, 24]
    assert seen[:24] != seen[24:]
