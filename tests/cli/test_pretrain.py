"""`maskmill pretrain`: what it prints, its exit codes, and that its options are those of its configuration."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from builders import small_runs
from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact

Capture = pytest.CaptureFixture[str]
SMALL = {"global-size": "32", "local-size": "16", "local-views": "1", "clusters": "8", "hidden": "16", "batch": "4"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    small_runs.index(write_dataset(tmp_path / "pictures"), tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    assert main(["pixels", "images", "--image-size", "32", "--out", "pixels"]) == 0
    capsys.readouterr()
    return tmp_path


def command(*more: str, **options: str) -> list[str]:
    asked = {"backbone": "test_vit.r160_in1k", **SMALL, "epochs": "2", "warmup": "0", "out": "checkpoint"}
    asked |= {"losses": "reconstruction", **options}  # without clusters that might collapse
    return ["pretrain", "pixels", *(word for name, value in asked.items() for word in (f"--{name}", value)), *more]


def test_it_tells_every_epoch_and_then_what_it_made(home: Path, capsys: Capture) -> None:
    assert main(command()) == 0
    said = capsys.readouterr()
    wanted = rf"checkpoint: kind backbone, backbone \S+, pictures 10, steps 4; done in \d+\.\d s → {home}/checkpoint\n"
    assert re.fullmatch(wanted, said.out)
    assert re.fullmatch(
        r"(maskmill: epoch [12] of 2: loss \S+, reconstruction \S+; \d+ rows/s, 0 min left\n){2}", said.err
    )
    assert main(command("--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["units_run"], answer["units_skipped"]) == (0, 1)
    assert main(["verify", "checkpoint"]) == 0


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"batch": "11"}, 2, "10 batch 11"),
        ({"global-size": "48"}, 2, "--global-size 48"),
        ({"backbone": "vit_smal_patch16_224"}, 2, "vit_small_patch16_224"),
        ({"backbone": "resnet18"}, 2, "resnet18"),
        ({"losses": "both"}, 2, "losses 'both'"),
        ({"seed": "1", "out": "made"}, 3, "seed 0 1 --out"),
    ],
)
def test_a_mistake_gets_one_sentence(
    home: Path, capsys: Capture, options: dict[str, str], code: int, named: str
) -> None:
    if options.get("out") == "made":
        assert main(command(out="made")) == 0
        capsys.readouterr()
    before = tree(home)
    refused(capsys, command(**options), named, code)
    assert tree(home) == before


def test_curves_are_drawn_beside_an_artifact_that_knows_nothing_of_them(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    before = tree(home)
    assert main(command(tensorboard="curves")) == 2
    assert_named(capsys.readouterr().err, "--tensorboard `pip install 'maskmill[")
    assert tree(home) == before
    monkeypatch.undo()
    monkeypatch.chdir(home)
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    assert main(command()) == 0
    plain = tree(home / "checkpoint")
    shutil.rmtree(home / "checkpoint")
    assert main(command(tensorboard="curves")) == 0
    assert tree(home / "checkpoint") == plain
    assert len(list((home / "curves").iterdir())) == 1
    assert main(command(tensorboard="curves")) == 0
    assert len(list((home / "curves").iterdir())) == 1, "there was nothing to draw"
    shutil.rmtree(home / "checkpoint")
    (home / "file").touch()
    assert main(command(tensorboard="file")) == 7
    assert_named(capsys.readouterr().err, "curves file")


def test_the_licence_goes_with_the_weights(home: Path, capsys: Capture) -> None:
    for name, licence in {"": "unknown", "cc-by-4.0": "cc-by-4.0"}.items():
        told = {"licence": name} if name else {}
        assert main(command(out=f"checkpoint-{name}", **told)) == 0
        extract = ["extract", "images", "--backbone", "test_vit.r160_in1k", "--weights", f"checkpoint-{name}"]
        assert main([*extract, "--image-size", "32", "--out", f"tokens-{name}"]) == 0
        assert open_artifact(str(home / f"tokens-{name}")).plan.facts["weights"]["licence"] == licence
    assert main(command(out="checkpoint-cc-by-4.0")) == 3
    assert_named(capsys.readouterr().err, "licence cc-by-4.0 unknown")
