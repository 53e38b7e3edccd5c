"""`maskmill train`: what it prints, its exit codes, that a recipe does the same, and a sentence for each mistake."""

import json
import re
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named, refused
from builders.small_dataset import tree
from builders.small_recipe import SMALL, write_recipe
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact

Capture = pytest.CaptureFixture[str]
WITH_INTERVAL = r"[01]\.\d{3} \((?:[01]\.\d{3})?–(?:[01]\.\d{3})?\)"  # no bounds where all resamples are alike
RECIPE = SMALL.replace("image_size = 32", 'image_size = 32\nfit = "squash"') + "[manifest]\n[train]\n"
LINEAR = RECIPE + 'student = "linear"\nsteps = 6\n'
CST = RECIPE + 'student = "cst"\nsupervision = "pseudo"\nsteps = 2\nbatch = 2\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's artifacts; only read."""
    home, told = tmp_path_factory.mktemp("made"), StringIO()
    write_recipe(home, CST)
    with redirect_stdout(told):
        assert main(["run", str(home / "recipe.toml"), "--work", str(home / "work")]) in (0, 6)
    (home / "told.txt").write_text(told.getvalue())
    names = json.loads((home / "work/last-run.json").read_text())["artifacts"]
    for name in ("images", "tokens", "dataset"):
        stage = {"images": "index", "tokens": "extract", "dataset": "manifest"}[name]
        (home / name).symlink_to(home / "work" / names[stage])
    (home / "by-recipe").symlink_to(home / "work" / names["train"])
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=False)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def linear(*more: str, **options: str) -> list[str]:
    asked = {"student": "linear", "tokens": "tokens", "images": "images", "steps": "6", "out": "checkpoint", **options}
    return ["train", "dataset", *(word for name, value in asked.items() for word in (f"--{name}", value)), *more]


def test_a_run_names_the_dataset_and_the_student(made: Path) -> None:
    names = json.loads((made / "work/last-run.json").read_text())["artifacts"]
    assert (made / "told.txt").read_text().splitlines()[-2:] == [
        f"result: dataset → {made}/work/{names['manifest']}",
        f"result: checkpoint → {made}/work/{names['train']}",
    ]


def test_it_tells_what_it_is_worth_and_what_it_made(home: Path, capsys: Capture) -> None:
    code = main(linear())
    told = capsys.readouterr()
    first, few, head, *lines, last = told.out.splitlines()
    assert first == "2 pictures that were not learned from:"
    assert "10 pictures" in few
    assert "mIoU without background" in head
    names = ["the student", "background everywhere", *["told the class: "] * 3]
    for name, line in zip(names, lines, strict=True):
        assert re.fullmatch(rf"  {name}.*  {WITH_INTERVAL} +{WITH_INTERVAL}", line), line
    wanted = (
        r"checkpoint: kind student, student linear, supervision published, steps 6, hidden 0, num_classes 3, fitting 8"
    )
    assert re.fullmatch(rf"{wanted}; done in \d+\.\d s → .*/checkpoint", last)
    assert code == 0
    before = tree(home / "checkpoint")
    assert main(linear("--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["units_run"], answer["units_skipped"]) == (0, 1)
    assert tree(home / "checkpoint") == before
    for about in (["status", "checkpoint"], ["verify", "checkpoint"]):
        assert main(about) == 0, about


def test_a_recipe_does_the_same(home: Path) -> None:
    """Of the same inputs, whichever command made them."""
    again = ["train", "dataset", "--student", "cst", "--supervision", "pseudo", "--steps", "2", "--batch", "2"]
    assert main([*again, "--tokens", "tokens", "--out", "again"]) == 0
    for name in ("weights.safetensors", "metrics.jsonl", "seen.json"):
        assert open_artifact("again").file(name) == open_artifact("by-recipe").file(name)


def test_a_dataset_alone_suffices(home: Path, capsys: Capture) -> None:
    online = ["train", "dataset", "--student", "linear", "--steps", "6", "--features", "online"]
    of_backbone = ["--backbone", "test_vit.r160_in1k", "--weights", "random:0", "--image-size", "32"]
    assert main([*online, *of_backbone, "--images", "images", "--out", "online"]) == 0
    assert main(linear()) == 0
    capsys.readouterr()
    counts = [open_artifact(name).summary.counts for name in ("online", "checkpoint")]
    assert counts[0] == counts[1]
    assert main([*online, *of_backbone, "--out", "shared"]) == 2  # of a copy that leads to no index
    assert_named(capsys.readouterr().err, "/dataset --images")


@pytest.mark.parametrize("order", [(LINEAR, CST), (CST, LINEAR)], ids=["linear first", "cst first"])
def test_one_work_folder_serves_both_students(order: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    """They ask for tokens of other blocks. Whatever is stored is read where that can be, and nothing is made again."""
    recipe, kept = write_recipe(tmp_path, order[0]), dict[str, str]()

    def ran(text: str) -> dict[str, dict[str, Any]]:
        recipe.write_text(text)
        assert main(["run", str(recipe), "--json"]) in (0, 6)
        found = {each["stage"]: each for each in json.loads(capsys.readouterr().out)}
        files = tree(tmp_path / "maskmill-work")
        assert {name: files.get(name) for name in kept} == kept
        kept.update({name: digest for name, digest in files.items() if name != "last-run.json"})
        return found

    first, second = ran(order[0]), ran(order[1])
    is_linear_first = order[0] == LINEAR
    assert {name for name, each in second.items() if each["units_run"]} == {"train"} | (
        {"extract"} if is_linear_first else set()
    )
    assert (first["extract"]["at"] == second["extract"]["at"]) is not is_linear_first
    for text, before in zip(order, (first, second), strict=True):
        again = ran(text)
        assert {name: each["at"] for name, each in again.items()} == {n: each["at"] for n, each in before.items()}
        assert not any(each["units_run"] for each in again.values())


def test_a_plan_says_where_the_cache_is_the_faster_way(home: Path, capsys: Capture) -> None:
    plan = ["plan", "extract", "images", "--backbone", "test_vit.r160_in1k", "--weights", "random:0"]
    assert main([*plan, "--image-size", "32", "--fields", "tokens:all,support_tokens:all,keys,cls_query"]) == 0
    told = capsys.readouterr().out
    # Of 6 blocks of 64 numbers of 2 bytes: 5 tokens of the query, 145 of the support, 4 keys of both and a class query.
    assert f"train --student cst would read {(6 * (5 + 145) + 8 + 1) * 128 / 1000:.1f} kB a pair" in told
    assert re.search(r"more than [\d.]+ [kMGT]?B/s", told)
    asked = ["--image-size", "32", "--dtype", "int8", "--fields", "tokens:all,support_tokens:all", "--json"]
    assert main([*plan, *asked]) == 0
    # A byte each, and of each token a scale of four.
    assert json.loads(capsys.readouterr().out)["pair_bytes"] == 6 * (5 + 145) * (64 + 4)
    assert main([*plan, "--image-size", "32"]) == 0
    assert "would read" not in capsys.readouterr().out


MISTAKES = {
    "train dataset --student linear --out x": "--tokens --backbone",
    "train dataset --student linear --tokens tokens --backbone b --out x": "--tokens --backbone",
    "train dataset --student linear --tokens tokens --fit pad --out x": "--fit --backbone",
    "train dataset --student linear --tokens tokens --features online --out x": "--features --tokens leave",
    "train dataset --student linear --backbone b --features cached --out x": "--features --backbone leave",
    "evaluate fscs c --tokens tokens --features online --out x": "--features --tokens leave",
    "train dataset --student linear --tokens tokens": "'--out'",
    "train tokens --student linear --tokens tokens --out x": "tokens dataset",
    "train dataset --student linear --tokens dataset --out x": "dataset tokens",
    "train dataset --student linear --tokens tokens --steps 0 --out x": "steps 0 1",
    "train dataset --student linear --tokens tokens --device cuda --out x": "device linear",
    "train dataset --student cst --tokens tokens --device tpu --out x": "device tpu cpu cuda",
    "train dataset --student cst --tokens tokens --classes cat --out x": "cat",
    "train dataset --student cst --tokens tokens --supervision mixed --out x": "mixed truth",
    "train nowhere --student cst --tokens tokens --out x": "nowhere",
}


@pytest.mark.parametrize("command", list(MISTAKES))
def test_a_mistake_is_one_sentence(made: Path, command: str, tmp_path: Path, capsys: Capture) -> None:
    words = [str(made / word) if (made / word).exists() and word != "train" else word for word in command.split()]
    refused(capsys, [str(tmp_path / "x") if word == "x" else word for word in words], MISTAKES[command])
    assert not (tmp_path / "x").exists()


def test_the_retired_features_option_is_named_and_decides_nothing(home: Path, capsys: Capture) -> None:
    assert main(linear()) in (0, 6)
    before = tree(home / "checkpoint")
    capsys.readouterr()
    assert main(linear("--features", "cached")) in (0, 6)
    told = capsys.readouterr()
    assert "already done" in told.out
    assert_named(told.err, "--features --tokens --backbone")
    assert tree(home / "checkpoint") == before
    assert main(["train", "dataset", "--student", "linear", "--features", "online", "--out", "x"]) == 2
    assert_named(capsys.readouterr().err, "--features --tokens --backbone needs")
    assert not (home / "x").exists()


def test_a_recipe_that_cannot_work_is_told_before(tmp_path: Path, capsys: Capture) -> None:
    for text, named in {
        CST.replace('fit = "squash"', 'fit = "pad"'): '[train] fit = "squash"',
        CST.replace("[manifest]\n", ""): "[train] dataset [manifest]",
        CST.replace('"pseudo"', '"truth"'): '[train] supervision "truth" pseudo published',
        LINEAR.replace("steps = 6", "steps = 0"): "[train] steps 0 1",
        LINEAR.replace("steps = 6", 'select = "last"\nclasses = ["a"]'): "[train] classes linear",
    }.items():
        recipe = write_recipe(tmp_path, text)
        assert main(["run", str(recipe), "--dry-run"]) == 2
        assert_named(capsys.readouterr().err, named)
