"""`maskmill extract` and `maskmill plan extract`: what they print, and the sentence for each mistake."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import small_runs
from builders.mistakes import refused
from builders.small_dataset import tree, write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.files import atomic

Capture = pytest.CaptureFixture[str]
BACKBONE = "test_vit.r160_in1k"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_runs.index(write_dataset(tmp_path / "pictures"), tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more: str, **options: str) -> list[str]:
    asked = {"backbone": BACKBONE, "weights": "random:0", "image-size": "32x48", "out": "tokens", **options}
    return ["extract", "images", *(word for name, value in asked.items() for word in (f"--{name}", value)), *more]


def test_it_says_what_it_made_and_then_that_it_is_done(home: Path, capsys: Capture) -> None:
    asked = command("--flip", fields=" keys, tokens:all ", dtype="int8", batch="4", **{"unit-rows": "4"})
    assert main(asked) == 0
    assert re.fullmatch(rf"tokens: 10 rows, 10 ok; 3 units run in \d+\.\d s → {home}/tokens\n", capsys.readouterr().out)
    tokens = open_tokens("tokens")
    assert set(tokens.fields) == {"keys", "tokens"}
    assert tokens.read("keys", "cat/0").shape == (6, 64)
    assert main(asked) == 0
    assert "; already done in " in capsys.readouterr().out
    assert main(command("--flip", dtype="int8", batch="4", fields="cls_query")) == 0
    assert "; 1 unit run, 3 skipped in " in capsys.readouterr().out


def test_the_plan_says_bytes_per_field_and_hours_and_writes_nothing(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(["plan", *command(fields="keys,cls_query,tokens:0-2")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("extract would make tokens, fingerprint ")
    assert "  10 rows in 1 unit of 256, 11 files\n" in said
    assert f"  keys: {10 * 6 * 64 * 2 / 1000:.1f} kB\n" in said
    assert f"  cls_query: {10 * 64 * 2 / 1000:.1f} kB\n" in said
    assert f"  tokens: {10 * 3 * 7 * 64 * 2 / 1000:.1f} kB\n" in said
    assert re.search(r"  time: \d+ s in one process on this machine \(\d+ rows took \d+\.\d s\)\n", said)
    assert "  memory per worker, besides the model: " in said
    assert tree(home) == before
    assert main(["plan", *command("--json", dtype="int8")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes_per_field"] == {
        "keys": 10 * 6 * 64,
        "keys_scale": 10 * 6 * 4,
        "cls_query": 10 * 64,
        "cls_query_scale": 10 * 4,
    }
    assert found["total_bytes"] == sum(found["bytes_per_field"].values())
    assert 1 <= found["measured_rows"] <= 10
    assert found["measured_s"] > 0
    assert tree(home) == before


def test_the_plan_counts_the_files_that_the_run_makes(home: Path, capsys: Capture) -> None:
    for dtype in ("float16", "int8"):
        asked = command("--json", dtype=dtype, out=dtype, **{"unit-rows": "4"})
        assert main(["plan", *asked]) == 0
        planned = json.loads(capsys.readouterr().out)["files"]
        assert main(asked) == 0
        capsys.readouterr()
        assert len(tree(home / dtype)) == planned


def test_without_any_good_picture_nothing_can_be_measured(home: Path, capsys: Capture) -> None:
    for path in (home / "pictures").rglob("*.png"):
        path.unlink()
    refused(capsys, ["plan", *command()], "images `maskmill status")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"image-size": "40x50"}, f"40x50 16x16 {BACKBONE}"),
        ({"image-size": "40x50"}, "32x48 48x64"),
        ({"image-size": "0"}, "16x16"),
        ({"image-size": "big"}, "'--image-size' 'big'"),
        ({"image-size": "²"}, "'²'"),
        ({"image-size": "-32"}, "'-32'"),
        ({"image-size": "32x"}, "'32x'"),
        ({"image-size": "32x48x3"}, "'32x48x3'"),
        ({"backbone": "test_vitt"}, "test_vitt test_vit"),
        ({"backbone": "vit_smal_patch8_224.dino"}, "vit_small_patch8_224.dino"),
        ({"backbone": "resnet18"}, "backbone resnet18"),
        ({"backbone": "test_vit2.r160_in1k"}, "cls_query keys"),
        ({"backbone": "vit_base_patch16_siglip_224", "fields": "keys,tokens"}, "tokens"),
        ({"fields": "keys,values"}, "'values' keys, cls_query,"),
        ({"fields": "keys,"}, "''"),
        ({"fields": "keys,keys"}, "keys twice"),
        ({"fields": "tokens:3,tokens:4"}, "tokens twice blocks"),
        ({"fields": "tokens:9"}, "tokens:9 9 0 5"),
        ({"weights": "nowhere.pth"}, "weights nowhere.pth random:SEED"),
        ({"weights": "pictures"}, "/pictures"),
        ({"weights": "images"}, "/images images checkpoint"),
        ({"weights": "random:x"}, "random:x random:0"),
        ({"weights": "pictures/cat/0.png"}, "pictures/cat/0.png safetensors torch"),
        ({"device": "cuda"}, "device cuda cpu"),
        ({"device": "gpu"}, "device gpu cpu cuda:NUMBER"),
        ({"device": "cuda:¹"}, "device cuda:¹"),
        ({"dtype": "float64"}, "'--dtype' 'float64'"),
        ({"batch": "0"}, "'--batch' 0"),
    ],
)
@pytest.mark.parametrize("plan", [False, True], ids=["run", "plan"])
def test_a_mistake_is_one_sentence(
    home: Path, capsys: Capture, asked: dict[str, str], named: str, plan: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = tree(home)
    refused(capsys, [*(["plan"] if plan else []), *command(**asked)], named)
    assert tree(home) == before


def test_a_directory_with_other_things_in_it(home: Path, capsys: Capture) -> None:
    before = tree(home)
    refused(capsys, command(out="pictures"), "/pictures empty")
    assert tree(home) == before


def test_images_that_are_none(home: Path, capsys: Capture) -> None:
    (home / "images/artifact.json").unlink()
    refused(capsys, command(), f"{home}/images unfinished")
    (home / "images/plan.json").unlink()
    refused(capsys, command(), f"{home}/images no artifact")
    small_runs.index(home / "pictures", home / "again")
    small_runs.toy(home / "again", home / "toys")
    (home / "toys").rename(home / "images2")
    arguments = command()
    arguments[1] = "images2"
    refused(capsys, arguments, "toys images")
    assert not (home / "tokens").exists()


@pytest.mark.parametrize("begun", [False, True], ids=["new", "fields added"])
def test_too_little_disk_is_told_before_anything_is_computed(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    if begun:
        assert main(command()) == 0
        capsys.readouterr()
    before = tree(home)
    needed = 10 * 6 * 7 * 64 * 2 + (0 if begun else 10 * (6 * 64 + 64) * 2)
    fields = "keys,cls_query,tokens:all"
    monkeypatch.setattr(atomic, "free_bytes", lambda place: needed - 1)
    refused(capsys, command(fields=fields), f"{home}/tokens free `maskmill plan`", 7)
    assert tree(home) == before
    assert (home / "tokens").exists() == begun
    monkeypatch.setattr(atomic, "free_bytes", lambda place: needed)
    assert main(command(fields=fields)) == 0
    monkeypatch.setattr(atomic, "free_bytes", lambda place: 0)
    assert main(command(fields=fields)) == 0, "what is there needs no room"
