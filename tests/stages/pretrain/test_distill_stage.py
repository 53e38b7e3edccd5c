"""Distillation as a user meets it: from stored pictures and stored tokens to a checkpoint that extraction takes."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from builders import small_runs
from builders.configs import make_config
from builders.small_dataset import tree, write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import Tokens
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.errors import ConfigError
from maskmill.manifests.files.place import Place
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.learning.loop import Course
from maskmill.stages.learning.processes import BatchSlice
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS
from maskmill.stages.pretrain import distill_stage, starting
from maskmill.stages.pretrain.config import PretrainConfig
from maskmill.stages.pretrain.distill_held_out import best_loss, hold_out_rows
from maskmill.stages.pretrain.distill_stage import load_material, make_batches, make_distilling, mean_held_out_cosine
from maskmill.stages.pretrain.distilling import Distilled, Distilling, Prepared
from maskmill.stages.pretrain.stage import METRICS, STAGE
from maskmill.stages.pretrain.stored_teacher import StoredTeacher, open_teacher
from maskmill.stages.pretrain.views import Crops

BACKBONE = "test_vit.r160_in1k"  # patches of 16 pixels
PICTURES, BATCH, SIDE = 26, 8, 48  # one held out; three steps an epoch


def extract(home: Path, out: str, **asked: Any) -> None:
    options = {"backbone": BACKBONE, "weights": "random:7", "image_size": (64, 64), "fields": ("tokens:all",), **asked}
    run(EXTRACT, make_config(ExtractConfig, **options), {"images": str(home / "images")}, str(home / out))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("distill")
    small_runs.index(write_dataset(home / "pictures", PICTURES), home / "images")
    run(PIXELS, PixelsConfig(image_size=(SIDE, SIDE)), {"images": str(home / "images")}, str(home / "pixels"))
    extract(home, "tokens")
    extract(home, "flipped", flip=True)
    return home


def inputs(home: Path, teacher: str = "tokens", flipped: str = "") -> dict[str, str]:
    roles = {"pixels": "pixels", "distill": teacher, "distill_flipped": flipped, "images": "images"}
    return {role: str(home / name) for role, name in roles.items() if name}


def distill(home: Path, out: Path, *, teacher: str = "tokens", flipped: str = "", **asked: Any) -> Outcome:
    small = {"global_size": 32, "epochs": 2, "warmup": 0, "batch": BATCH, "seed": 3, "momentum": 0.5}
    config = make_config(PretrainConfig, backbone=BACKBONE, **{**small, **asked})
    return run_whole(STAGE, config, inputs(home, teacher, flipped), str(out))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_artifact(str(out)).file(METRICS).splitlines()]


def test_a_checkpoint_without_head_that_extraction_takes(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="maskmill")
    made = distill(home, tmp_path / "out", flipped="flipped")
    expected = {
        "kind": "backbone",
        "backbone": BACKBONE,
        "teacher": BACKBONE,
        "pictures": 25,
        "pictures_held_out": 1,
        "steps": 6,
    }
    assert expected.items() <= made.counts.items()
    assert made.counts["distill_loss"] in ("cosine", "smooth-l1")
    assert f"learning with {made.counts['distill_loss']}: held-out cosine after 1 steps was cosine" in caplog.text
    weights = load(open_artifact(str(tmp_path / "out")).file("weights.safetensors"))
    assert not [name for name in weights if name.startswith("head")]
    last = metrics(tmp_path / "out")[-1]
    assert last["loss"] == pytest.approx(last["cls"] + last["patch"])
    mean = (last["held-out cls cosine"] + last["held-out patch cosine"]) / 2
    assert made.counts["held_out_cosine"] == pytest.approx(mean, abs=1e-4)
    config = make_config(ExtractConfig, backbone=BACKBONE, weights=str(tmp_path / "out"), image_size=(32, 32))
    assert run(EXTRACT, config, {"images": str(home / "images")}, str(tmp_path / "tokens")).exit_code == 0


@pytest.mark.parametrize("loss", ["cosine", "smooth-l1"])
def test_a_random_teacher_is_learned(home: Path, tmp_path: Path, loss: str) -> None:
    asked: dict[str, Any] = {"epochs": 30, "learning_rate": 0.05, "warmup": 2, "distill_loss": loss}
    distill(home, tmp_path / "out", **asked)
    lines = metrics(tmp_path / "out")
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:9], lines[-9:]))
    assert last < 0.9 * first
    ends = [line["held-out patch cosine"] for line in lines if "held-out patch cosine" in line]
    assert len(ends) == 30
    assert ends[-1] > ends[0] + 0.1


@pytest.mark.parametrize("stopped", [0, 2, 5])
def test_stopped_by_ctrl_c_and_gone_on_with_it_is_the_same(
    home: Path, tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss that was chosen is not chosen again."""
    if not (home / "never").exists():
        distill(home, home / "never", flipped="flipped")
    losses = Distilling.losses

    def interrupted(self: Distilling, step: int, tensors: Any) -> Any:
        if step == stopped:
            raise KeyboardInterrupt
        return losses(self, step, tensors)

    monkeypatch.setattr(Distilling, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill(home, home / tmp_path.name, flipped="flipped")
    done: list[int] = []

    def noted(self: Distilling, step: int, tensors: Any) -> Any:
        done.append(step)
        assert (self.choice.loss is None) == (step == 0)
        return losses(self, step, tensors)

    monkeypatch.setattr(Distilling, "losses", noted)
    distill(home, home / tmp_path.name, flipped="flipped")
    assert done == list(range(stopped, 6))
    assert tree(home / tmp_path.name) == tree(home / "never")


def test_flipped_crops_have_the_tokens_of_the_mirrored_picture(home: Path) -> None:
    """As computed by the teacher from the mirrored picture, not the upright tokens mirrored."""
    opened = {role: open_artifact(place) for role, place in inputs(home, flipped="flipped").items()}
    teacher, rows = open_teacher(opened, None)
    whole = torch.tensor([[0, 0, SIDE, SIDE]] * 2)
    targets = teacher.match(rows[:2], Crops(whole, torch.tensor([False, True])), (4, 4))
    ids = [opened["pixels"].rows(["id"]).column("id").to_pylist()[row] for row in rows[:2]]
    for place, name in enumerate(("distill", "distill_flipped")):
        stored = Tokens(opened[name]).read("tokens", ids[place])[-1].astype(np.float32)
        torch.testing.assert_close(targets.tokens_BMD[place, 0], torch.from_numpy(stored[0]))
    without = teacher.match(rows[1:2], Crops(whole[1:], torch.tensor([False])), (4, 4)).tokens_BMD
    grid = without[:, 1:].reshape(1, 4, 4, -1).flip(2).flatten(1, 2)
    assert (grid - targets.tokens_BMD[1:, 1:]).abs().max() > 0.1


def test_without_a_flipped_view_nothing_is_flipped(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[bool]] = {"": set(), "flipped": set()}
    losses = Prepared.losses
    for flipped in seen:

        def noted(self: Prepared, student: Distilled, loss: Any, step: int, tensors: Any, to: str = flipped) -> Any:
            seen[to] |= set(tensors["is_flipped"].tolist())
            return losses(self, student, loss, step, tensors)

        monkeypatch.setattr(Prepared, "losses", noted)
        distill(home, tmp_path / f"out{flipped}", flipped=flipped)
    assert seen == {"": {False}, "flipped": {False, True}}


def test_it_starts_from_weights_and_the_block_that_was_asked_for(home: Path, tmp_path: Path) -> None:
    """With momentum 1 the first weights are kept."""
    distill(home, tmp_path / "first", epochs=1)
    weights = open_artifact(str(tmp_path / "first")).file("weights.safetensors")
    save_file(load(weights), tmp_path / "given.safetensors")
    asked: dict[str, Any] = {"momentum": 1.0, "distill_block": 1, "distill_loss": "cosine", "epochs": 1}
    distill(home, tmp_path / "second", initial_weights=str(tmp_path / "given.safetensors"), **asked)
    again = load(open_artifact(str(tmp_path / "second")).file("weights.safetensors"))
    assert all(torch.equal(value, again[name]) for name, value in load(weights).items())
    distill(home, tmp_path / "last", **{**asked, "distill_block": None})
    assert metrics(tmp_path / "second")[0]["loss"] != metrics(tmp_path / "last")[0]["loss"]


def test_a_failed_row_is_skipped_and_a_number_that_is_not_finite_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (broken := tmp_path / "broken").mkdir()
    small_runs.index(write_dataset(broken / "pictures", PICTURES), broken / "images")
    pixels = PixelsConfig(image_size=(SIDE, SIDE))
    run(PIXELS, pixels, {"images": str(broken / "images")}, str(broken / "pixels"))
    victim = sorted((broken / "pictures").rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:-30])
    config = make_config(
        ExtractConfig, backbone=BACKBONE, weights="random:7", image_size=(64, 64), fields=("tokens:last",)
    )
    options = RunOptions(max_bad=0.5)
    run(EXTRACT, config, {"images": str(broken / "images")}, str(broken / "tokens"), options)
    assert distill(broken, tmp_path / "out", epochs=1).counts["pictures"] == 24
    at = Tokens.at

    def poisoned(self: Tokens, field: str, positions: Any) -> Any:
        values = at(self, field, positions).copy()
        values[-1, 0, 2, 0] = np.nan
        return values

    monkeypatch.setattr(Tokens, "at", poisoned)
    with pytest.raises(ConfigError, match=r"tokens.*not finite numbers"):
        distill(broken, tmp_path / "none", epochs=1)


@pytest.mark.parametrize(
    ("extracted", "given", "named"),
    [
        ({"fields": ("keys",)}, {"teacher": "strange"}, r"strange holds keys and no tokens.*maskmill extract"),
        ({"flip": True}, {"teacher": "strange"}, "mirrored.*--distill-flipped"),
        ({}, {"flipped": "tokens"}, "not the mirrored view.*flip"),
        ({"flip": True, "fit": "squash"}, {"flipped": "strange"}, "not the mirrored view.*fit is squash, expected pad"),
        ({"flip": True, "weights": "random:8"}, {"flipped": "strange"}, "not the mirrored view.*weights_sha256"),
        ({}, {"distill_block": 99}, r"tokens of block 0, .*--distill-block 99.*tokens:99"),
        ({}, {"clusters": 16}, "--clusters.*--distill"),
        ({}, {"losses": "cls"}, "--losses.*--distill"),
        ({}, {"local_views": 2}, "--local-views.*--distill"),
        ({}, {"teacher": "", "distill_loss": "cosine"}, "--distill-loss.*--distill"),
        ({}, {"teacher": "", "flipped": "flipped"}, "--distill-flipped needs --distill"),
        ({}, {"global_size": 64}, "--global-size 64.*48"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    home: Path, tmp_path: Path, extracted: Mapping[str, Any], given: Mapping[str, Any], named: str
) -> None:
    given = {role: str(tmp_path / "strange") if value == "strange" else value for role, value in given.items()}
    if extracted:
        extract(home, str(tmp_path / "strange"), **extracted)
    with pytest.raises(ConfigError, match=named):
        distill(home, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_tokens_of_other_pictures_are_refused(home: Path, tmp_path: Path) -> None:
    small_runs.index(write_dataset(tmp_path / "pictures", 9), tmp_path / "images")
    extract(tmp_path, "tokens")
    with pytest.raises(ConfigError, match="were made from other images"):
        distill(home, tmp_path / "out", teacher=str(tmp_path / "tokens"))


def test_two_processes_see_the_halves_of_what_one_sees(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops, flips, colours and targets: the mean of the halves' losses is the loss of the whole batch."""
    config = make_config(
        PretrainConfig, backbone=BACKBONE, global_size=32, batch=BATCH, warmup=0, epochs=2, distill_loss="smooth-l1"
    )
    opened = {role: open_artifact(place) for role, place in inputs(home, flipped="flipped").items()}
    material = load_material(config, opened)
    course, losses = Course(steps=6, steps_per_epoch=3, seed=0), dict[BatchSlice, float]()
    for part in (BatchSlice(), BatchSlice(0, 2), BatchSlice(1, 2)):
        for module in (distill_stage, starting):
            monkeypatch.setattr(module, "own_batch_slice", lambda part=part: part)
        batch = make_batches(config, material, 3)
        distilling = make_distilling(config, material, batch, course, Underway(Place("nowhere")))
        assert batch(1).rows == BATCH // part.count
        losses[part] = float(distilling.losses(1, batch(1).tensors).total.detach())
    whole, first, second = losses.values()
    assert first != second
    assert whole == pytest.approx((first + second) / 2, rel=1e-5)


def test_the_command_prints_what_it_made(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--global-size", "32", "--batch", str(BATCH), "--epochs", "1", "--distill-loss", "cosine"]
    roles = ["--distill", str(home / "tokens"), "--distill-flipped", str(home / "flipped")]
    command = ["pretrain", str(home / "pixels"), "--backbone", BACKBONE, *roles, *small]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "distill_loss cosine, pictures 25, pictures_held_out 1, held_out_cosine" in capsys.readouterr().out
    assert main([*command, "--clusters", "9", "--out", str(tmp_path / "none")]) == 2
    assert "--clusters is not for --distill" in capsys.readouterr().err


def test_a_process_that_does_not_watch_has_no_held_out_cosine() -> None:
    line = {"step": 5, "loss": 1.0, "cls": 0.5, "patch": 0.5}
    assert mean_held_out_cosine(line) == {}
    watched = {**line, "held-out cls cosine": 0.5, "held-out patch cosine": 0.7}
    assert mean_held_out_cosine(watched) == {"held_out_cosine": pytest.approx(0.6)}


def test_a_config_without_new_options_is_stored_as_before(home: Path, tmp_path: Path) -> None:
    distill(home, tmp_path / "out", epochs=1)
    stored = open_artifact(str(tmp_path / "out")).plan.config
    assert not {"distill_loss", "distill_block", "initial_weights", "initial_sha256"} & set(stored)


def test_the_held_out_rows_are_one_in_twenty_and_not_learned_from() -> None:
    learned, judged = hold_out_rows(np.arange(100, 200), 5)
    assert (len(learned), len(judged)) == (95, 5)
    assert sorted([*learned, *judged]) == list(range(100, 200))
    assert best_loss({"cosine": 0.2, "smooth-l1": 0.3}) == "smooth-l1"


def test_a_teacher_reads_by_id_and_not_by_place(home: Path) -> None:
    opened = {role: open_artifact(place) for role, place in inputs(home).items()}
    teacher, rows = open_teacher(opened, None)
    assert isinstance(teacher, StoredTeacher)
    ids = opened["pixels"].rows(["id"]).column("id").to_pylist()
    stored = Tokens(opened["distill"]).read("tokens", [ids[row] for row in rows[:3]])[:, -1]
    np.testing.assert_array_equal(teacher.read(rows[:3]).numpy(), stored.astype(np.float32))
