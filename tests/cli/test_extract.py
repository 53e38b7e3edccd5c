"""`maskmill extract` and `maskmill plan extract`: what they print, and the sentence for each mistake."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs
from maskmill.cli.main import main
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.files import atomic
from small_dataset import tree, write_dataset

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
    assert "; 1 units run, 3 skipped in " in capsys.readouterr().out


def test_the_plan_says_bytes_per_field_and_hours_and_writes_nothing(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(["plan", *command(fields="keys,cls_query,tokens:0-2")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("extract would make tokens, fingerprint ")
    assert "  10 rows in 1 units of 256, 11 files\n" in said
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
    assert main(["plan", *command()]) == 2
    said = capsys.readouterr().err
    assert "has no picture that could be measured; see `maskmill status" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"image-size": "40x50"}, f"image size 40x50 is not whole patches of 16x16 pixels, as {BACKBONE} has; "),
        ({"image-size": "40x50"}, "; choose 32x48 or 48x64"),
        ({"image-size": "0"}, "choose 16x16"),
        ({"image-size": "big"}, "'big' is no size; write a side such as 224, or rows and columns such as 384x512"),
        ({"image-size": "²"}, "'²' is no size"),
        ({"image-size": "-32"}, "'-32' is no size"),
        ({"image-size": "32x"}, "'32x' is no size"),
        ({"image-size": "32x48x3"}, "'32x48x3' is no size"),
        ({"backbone": "test_vitt"}, "has no backbone test_vitt; did you mean test_vit"),
        ({"backbone": "vit_smal_patch8_224.dino"}, "did you mean vit_small_patch8_224.dino"),
        ({"backbone": "resnet18"}, "backbone resnet18 is no vision transformer that can be read here"),
        ({"backbone": "test_vit2.r160_in1k"}, "has no class token, which cls_query needs; it can give keys"),
        ({"backbone": "vit_base_patch16_siglip_224", "fields": "keys,tokens"}, "no class token, which tokens needs"),
        ({"fields": "keys,values"}, "there is no field 'values'; choose among keys, cls_query, "),
        ({"fields": "keys,"}, "there is no field ''"),
        ({"fields": "keys,keys"}, "field keys is asked for twice"),
        ({"fields": "tokens:3,tokens:4"}, "field tokens is asked for twice; name it once, with all its blocks"),
        ({"fields": "tokens:9"}, "field tokens:9 names block 9, and there are 0 to 5"),
        ({"weights": "nowhere.pth"}, "weights nowhere.pth are no file; give one, random:SEED, or nothing for"),
        ({"weights": "pictures"}, "no artifact at "),
        ({"weights": "images"}, "/images holds images where checkpoint"),
        ({"weights": "random:x"}, "weights random:x name no seed; write random:0"),
        ({"weights": "pictures/cat/0.png"}, "are neither a whole safetensors file nor a whole torch checkpoint"),
        ({"device": "cuda"}, "device is cuda, and torch sees no CUDA device here; choose --device cpu"),
        ({"device": "gpu"}, "device is gpu and must be cpu, cuda or cuda:NUMBER"),
        ({"device": "cuda:¹"}, "device is cuda:¹ and must be"),
        ({"dtype": "float64"}, "'float64' is not one of"),
        ({"batch": "0"}, "0 is not in the range"),
    ],
)
@pytest.mark.parametrize("plan", [False, True], ids=["run", "plan"])
def test_a_mistake_is_one_sentence(
    home: Path, capsys: Capture, asked: dict[str, str], told: str, plan: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = tree(home)
    assert main([*(["plan"] if plan else []), *command(**asked)]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1 or said.err.startswith("Usage: ")
    assert said.out == ""
    assert tree(home) == before


def test_a_directory_with_other_things_in_it(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(command(out="pictures")) == 2
    assert "is no artifact and not empty" in capsys.readouterr().err
    assert tree(home) == before


def test_images_that_are_none(home: Path, capsys: Capture) -> None:
    def told(*more: str) -> str:
        assert main(command(*more)) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.count("\n") == 1
        return said

    (home / "images/artifact.json").unlink()
    assert f"{home}/images is unfinished: its index run was stopped or is still running; see" in told()
    (home / "images/plan.json").unlink()
    assert f"no artifact at {home}/images" in told()
    small_runs.index(home / "pictures", home / "again")
    small_runs.toy(home / "again", home / "toys")
    (home / "toys").rename(home / "images2")
    arguments = command()
    arguments[1] = "images2"
    assert main(arguments) == 2
    assert "holds toys where images are wanted" in capsys.readouterr().err
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
    assert main(command(fields=fields)) == 7
    said = capsys.readouterr().err
    assert re.search(rf"^maskmill: {home}/tokens would need .* more and its disk has .* free; free space, choose", said)
    assert "`maskmill plan` says which field takes what" in said
    assert tree(home) == before
    assert (home / "tokens").exists() == begun
    monkeypatch.setattr(atomic, "free_bytes", lambda place: needed)
    assert main(command(fields=fields)) == 0
    monkeypatch.setattr(atomic, "free_bytes", lambda place: 0)
    assert main(command(fields=fields)) == 0, "what is there needs no room"
