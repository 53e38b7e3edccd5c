"""`maskmill enhance fit` and `apply`: what they print, that a recipe does the same, the sentence for each mistake."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.mistakes import refused
from builders.small_dataset import tree, write_dataset
from builders.small_recipe import SMALL, write_recipe
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.stages.enhance import enhancer_fit as fitting
from maskmill.stages.scores.verdict import FEWEST_PICTURES

Capture = pytest.CaptureFixture[str]
WITH_INTERVAL = r"-?[01]\.\d{3} \(-?[01]\.\d{3}–-?[01]\.\d{3}\)"
SETTINGS = ["--set", "mask.per_head=true", "--set", "mask.supports=2"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "STEPS", 20)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Path:
    """images, tokens, and maps with and without heads; only read."""
    home = tmp_path_factory.mktemp("made")
    write_recipe(home)
    pictures = ["index", "folder", str(home / "pictures"), "--masks", str(home / "masks")]
    assert main([*pictures, "--out", str(home / "images")]) == 0
    extract = ["extract", str(home / "images"), "--backbone", "test_vit.r160_in1k", "--weights", "random:0"]
    assert (
        main(
            [*extract, "--image-size", "32", "--fields", "keys,cls_query,cls_attention", "--out", str(home / "tokens")]
        )
        == 0
    )
    mask = ["mask", str(home / "tokens")]
    for name, more in {"maps": ["--per-head"], "bare": [], "own": ["--per-head", "--supports", "0"]}.items():
        assert main([*mask, "--supports", "2", *more, "--out", str(home / name)]) in (0, 6)
    assert main([*mask, "--method", "cls-attention", "--out", str(home / "attention")]) in (0, 6)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A copy, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def test_from_maps_to_labels(home: Path, capsys: Capture) -> None:
    command = ["enhance", "fit", "maps", "--gt-per-class", "2", "--out", "enhancer"]
    code = main(command)
    told = capsys.readouterr()
    worth = "mIoU on 6 .*: before X, after X; difference X"
    line, few, made = told.out.splitlines()
    assert str(FEWEST_PICTURES) in few
    assert re.fullmatch(worth.replace("X", WITH_INTERVAL), line)
    assert re.fullmatch(
        r"checkpoint: kind enhancer, method cst, supports 2, score_kind cosine01, views 1, heads 2, backbone "
        rf"test_vit.r160_in1k, weights_sha256 \w+, .*fitting 3, stopping 1; done in .* s → {home}/enhancer",
        made,
    )
    assert (code == 6) == ("warning: " in told.err)
    assert main(command) == code
    assert "already done" in capsys.readouterr().out
    assert main(["plan", "enhance", "apply", "maps", "enhancer"]) == 0
    assert "enhance would make maps" in capsys.readouterr().out
    assert main(["enhance", "apply", "maps", "enhancer", "--out", "enhanced"]) == 0
    assert "maps: 10 rows, 10 ok; " in capsys.readouterr().out
    assert main(["refine", "enhanced", "--out", "labels"]) == 0
    assert main(["manifest", "labels", "--ground-truth", "enhancer", "--out", "dataset"]) == 0
    rows = open_artifact("dataset").frame("data", 0).read(columns=["objects"]).column("objects").to_pylist()
    sources = [each["source"] for objects in rows for each in objects]
    assert (sources.count("gt"), sources.count("enhanced")) == (4, 6)
    capsys.readouterr()
    assert main(["evaluate", "masks", "dataset", "--against", "images", "--out", "metrics"]) == 0
    assert "6 pictures with ground truth" in capsys.readouterr().out
    for about in (["status", "enhanced"], ["verify", "enhanced"], ["verify", "enhancer"], ["retry", "enhanced"]):
        assert main(about) == 0, about


def test_heads_that_are_missing_come_with_the_command_that_is_printed(home: Path, capsys: Capture) -> None:
    for name in ("bare", "attention"):
        assert main(["enhance", "fit", name, "--gt-per-class", "1", "--out", "x"]) == 2
        said = capsys.readouterr().err
        assert "`maskmill mask " in said
        command = said.partition("`maskmill ")[2].partition("`")[0].split()
        assert main(command) in (0, 6)
        assert open_artifact(name).plan.fields["head_maps"].shape == (2, 2, 2)
        assert main(["enhance", "fit", name, "--gt-per-class", "1", "--out", f"of {name}"]) in (0, 6)
        capsys.readouterr()


def test_a_recipe_does_the_same(home: Path, capsys: Capture) -> None:
    text = SMALL.replace("supports = 0", "supports = 2\nper_head = true")
    text = text.replace("[refine]", "[enhancer]\ngt_per_class = 2\n[enhance]\n[refine]\n[manifest]\n[evaluate]")
    (home / "recipe.toml").write_text(text)
    code = main(["run", "recipe.toml", "--json"])
    assert code in (0, 6)
    stages = [each["stage"] for each in json.loads(capsys.readouterr().out)]
    assert stages == ["index", "extract", "mask", "enhancer", "enhance", "refine", "manifest", "evaluate"]
    assert main(["enhance", "fit", "maps", "--gt-per-class", "2", "--out", "enhancer"]) == code
    assert main(["enhance", "apply", "maps", "enhancer", "--out", "enhanced"]) == 0
    (work,) = [
        path for path in (home / "maskmill-work").glob("maps-*") if "enhance" in (path / "plan.json").read_text()
    ]
    digests = [open_artifact(str(path)).rows(["id", "map_sha256"]) for path in (work, home / "enhanced")]
    assert digests[0] == digests[1]
    capsys.readouterr()
    assert main(["run", "recipe.toml", "--json"]) == code
    assert all(each["units_run"] == 0 for each in json.loads(capsys.readouterr().out))


def test_a_recipe_goes_on_when_pictures_were_added(home: Path, capsys: Capture) -> None:
    """What was learned stays as it is, and what is learned of the new pictures stands beside it."""

    def ran(*more: str) -> dict[str, dict[str, Any]]:
        assert main(["run", "recipe.toml", "--json", *more]) in (0, 6)
        return {each["stage"]: each for each in json.loads(capsys.readouterr().out)}

    text = SMALL.replace("supports = 0", "supports = 2\nper_head = true")
    text = text.replace("[refine]", "[enhancer]\ngt_per_class = 2\n[enhance]\n[refine]\n[manifest]")
    text += '[train]\nstudent = "linear"\nsteps = 4\n'
    (home / "recipe.toml").write_text(text)
    first = ran()
    checkpoints = {each: tree(Path(first[each]["at"])) for each in ("enhancer", "train")}
    write_dataset(home / "pictures", 14, masks=True)
    second = ran("--update")
    assert [second[each]["rows"] for each in ("mask", "enhance")] == [14, 14]
    for name, before in checkpoints.items():
        assert second[name]["units_run"] == 1
        assert second[name]["at"] != first[name]["at"]
        assert tree(Path(first[name]["at"])) == before
    assert {each["units_run"] for each in ran().values()} == {0}
    command = ["enhance", "fit", second["mask"]["at"], "--gt-per-class", "2", "--out", first["enhancer"]["at"]]
    refused(capsys, command, f"{first['enhancer']['at']} maps images --out", 3)


def test_a_list_of_ids_says_what_is_learned_from(home: Path) -> None:
    (home / "ids.txt").write_text("cat/0\ndog/1\n")
    assert main(["enhance", "fit", "maps", "--gt-list", "ids.txt", "--out", "enhancer"]) in (0, 6)
    seen = json.loads(open_artifact("enhancer").file("seen.json"))["masks"]
    assert sorted([*seen["fitting"], *seen["stopping"]]) == ["cat/0", "dog/1"]


MISTAKES = {
    "enhance fit maps --out x": "gt-fraction gt-per-class gt-list",
    "enhance fit maps --gt-per-class 1": "'--out'",
    "enhance fit tokens --gt-per-class 1 --out x": "tokens maps",
    "enhance fit maps --gt-per-class 1 --classes cow --out x": "classes 'cow'",
    "enhance fit maps --gt-list nowhere --out x": "nowhere",
    "enhance apply maps tokens --out x": "tokens checkpoint",
    "enhance apply maps enhancer --threshold high --out x": "threshold 'high' otsu 0",
    "enhance apply own enhancer --out x": "enhancer supports 2 0",
    "enhance apply bare enhancer --out x": "bare `maskmill mask",
    "enhance apply maps enhancer": "'--out'",
    "mask tokens --method maskcut --per-head --out x": "maskcut --per-head",
}


@pytest.fixture(scope="module")
def fitted(made: Path) -> Path:
    assert main(["enhance", "fit", str(made / "maps"), "--gt-per-class", "2", "--out", str(made / "enhancer")]) in (
        0,
        6,
    )
    return made


@pytest.mark.parametrize("command", list(MISTAKES))
def test_a_mistake_is_one_sentence(fitted: Path, command: str, tmp_path: Path, capsys: Capture) -> None:
    there = {path.name for path in fitted.iterdir()} | {"nowhere"}
    words = [str(fitted / word) if word in there else word for word in command.split()]
    refused(capsys, [str(tmp_path / "x") if word == "x" else word for word in words], MISTAKES[command])
    assert not (tmp_path / "x").exists()


def test_the_second_run_changes_nothing(fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "enhanced"
    command = ["enhance", "apply", str(fitted / "maps"), str(fitted / "enhancer"), "--out", str(out)]
    assert main(command) == 0
    before = tree(out)
    assert main(command) == 0
    assert tree(out) == before
    maps = open_artifact(str(out)).read("map", range(10))
    assert np.isfinite(maps).all()
