"""`maskmill weights convert`: from a training run's checkpoint to a file that every command takes."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders import small_runs
from builders.mistakes import assert_named, refused
from builders.small_dataset import write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.stages.vision.weights import read_weights

Capture = pytest.CaptureFixture[str]
BACKBONE = "test_vit.r160_in1k"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As DINO's own training writes it: teacher and student, and the arguments of the command."""
    state = read_weights(BACKBONE, "random:0")[1]
    held = {
        "teacher": {f"backbone.{name}": tensor for name, tensor in state.items()},
        "student": {f"module.backbone.{name}": tensor + 1 for name, tensor in state.items()},
        "args": argparse.Namespace(arch="vit_small", out=Path("/somewhere")),
        "epoch": 300,
    }
    torch.save(held, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def test_a_checkpoint_is_refused_with_the_way_out_and_taken_once_converted(
    checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    small_runs.index(write_dataset(tmp_path / "pictures", 4), tmp_path / "images")
    asked = ["extract", str(tmp_path / "images"), "--out", str(tmp_path / "tokens"), "--backbone", BACKBONE]
    asked += ["--image-size", "32", "--weights"]
    assert main([*asked, str(checkpoint)]) == 2
    said = capsys.readouterr().err
    assert_named(said, f"{checkpoint} argparse.Namespace")
    remedy = re.search(r"`maskmill (weights convert \S+ \S+)`", said)
    assert remedy is not None
    assert main(remedy[1].split()) == 0
    converted = checkpoint.with_suffix(".safetensors")
    told = capsys.readouterr().out
    assert re.fullmatch(
        rf"weights: \d+\.\d [kM]B of tensors → {converted}; forgot what it held of .*argparse\.Namespace.*\n", told
    )
    state = read_weights(BACKBONE, "random:0")[1]
    held = load_file(converted)
    assert held.keys() == state.keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in state.items())
    assert main([*asked, str(converted)]) == 0
    assert open_tokens(tmp_path / "tokens").weights["source"] == "checkpoint.safetensors"


def test_a_plain_file_is_converted_too(tmp_path: Path, capsys: Capture) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "plain.pth")
    assert main(["weights", "convert", str(tmp_path / "plain.pth"), str(tmp_path / "new/plain.safetensors")]) == 0
    assert "forgot" not in capsys.readouterr().out
    assert load_file(tmp_path / "new/plain.safetensors")["weight"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("nowhere.pth", "out.safetensors", "nowhere.pth"),
        (".", "out.safetensors", ". directory"),
        ("text.pth", "out.safetensors", "text.pth safetensors torch"),
        ("odd.pth", "out.safetensors", "odd.pth argparse.Namespace"),
        ("plain.pth", "out.pth", "out.pth out.safetensors"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, source: str, target: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("no weights")
    torch.save({"weight": torch.ones(3), "kind": re.compile("x").__class__}, "odd.pth")
    torch.save({"weight": torch.ones(3)}, "plain.pth")
    refused(capsys, ["weights", "convert", source, target], named)
    assert not Path(target).exists()
