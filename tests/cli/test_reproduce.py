"""The reproductions that ship as lists of commands: every command is one that there is, and they run as shown."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from builders.small_voc import settings, write_voc
from maskmill.cli.main import cli, main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.pipeline.recipes import SCRIPTS, read_shipped_recipe

STUB = """#!{python}
import json, os, sys
with open(os.environ["ASKED"], "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(6 if sys.argv[1] == "mask" else 0)
"""


def commands_of(name: str, home: Path, told: Mapping[str, str]) -> list[list[str]]:
    """What the script asks of maskmill, which does nothing, and warns once."""
    (home / "bin").mkdir()
    stub = home / "bin/maskmill"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    script = home / "script.sh"
    script.write_bytes(read_shipped_recipe(name))
    places = {"ASKED": str(home / "asked"), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", str(script)], env={**told, **places}, cwd=home, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    return [json.loads(line) for line in (home / "asked").read_text().splitlines()]


def parsed(words: list[str]) -> None:
    """Raises for a command or an option that there is not."""
    command: click.Command = cli
    rest = words
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, words
        command, rest = found, rest[1:]
    command.make_context(words[0], rest)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_is_one_that_there_is(name: str, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    for part in ("trn", "val"):
        (lists / part).mkdir(parents=True)
        for fold in range(4):
            (lists / part / f"fold{fold}.txt").write_text("2007_000032__01\n")
    asked = commands_of(name, tmp_path, {"FOLDS": str(lists)})
    for words in asked:
        parsed(words)
    assert [words[0] for words in asked[-4:]] == ["evaluate"] * 4
    trained = [words for words in asked if words[0] == "train"]
    assert len(trained) == 8
    num_classes = 15 if name.endswith("pascal") else 60
    for words in trained:
        assert len(set(words[words.index("--classes") + 1].split(","))) == num_classes


def test_no_class_of_a_fold_is_learned(tmp_path: Path) -> None:
    asked = commands_of("reproduce-cst-coco", tmp_path, {})
    for words in (words for words in asked if words[0] == "train"):
        fold = int(words[words.index("--out") + 1][-1])
        learned = {int(number) for number in words[words.index("--classes") + 1].split(",")}
        assert learned == {number for number in range(1, 81) if (number - 1) % 4 != fold}


@pytest.mark.slow
def test_pascal_is_trained_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in commands_of("reproduce-cst-pascal", tmp_path, settings(tmp_path, "work")):
        assert main(words) in (0, 6), words
    for supervision in ("pseudo", "mask"):
        for way in (1, 2):
            found = open_artifact(f"work/metrics-{supervision}-{way}-way", "metrics")
            metrics = json.loads(found.file("metrics.json"))
            assert [fold["supervision"] for fold in metrics["folds"]] == [supervision] * 4
            assert [fold["name"] for fold in metrics["folds"]] == [f"fold {fold}" for fold in range(4)]
            assert len(metrics["mean"]) == 4
            assert "published" not in metrics  # which is of 1,000 episodes
