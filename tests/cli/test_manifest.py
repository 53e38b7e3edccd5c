"""`maskmill manifest` and `maskmill plan manifest`: what they print, and the sentence for each mistake."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from builders.configs import make_command
from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset
from builders.small_labels import BROKEN, LABELS, make_labels
from maskmill import open_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids_json
from maskmill.pipeline.running.run import retry
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.stage import Findings, WholeStage

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    make_labels(tmp_path)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def command(*more: str) -> list[str]:
    return ["manifest", "labels", "--out", "dataset", "--unit-rows", "3", "--max-bad", "0.5", *more]


def truth() -> list[str]:
    rows = open_artifact("dataset", "dataset").rows().to_pylist()
    return [row["id"] for row in rows if "gt" in (row["sources"] or ())]


def test_it_says_what_it_made_and_then_that_it_is_done(home: Path, capsys: Capture) -> None:
    assert main(command("--title", "cats", "--licence", "CC-BY-4.0", "--min-score", "area>=0.4")) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(rf"dataset: 8 rows, 7 ok, 1 failed upstream; 3 units run in \d+\.\d s → {home}/dataset\n", said)
    assert main(command("--title", "cats", "--licence", "CC-BY-4.0", "--min-score", "area>=0.4")) == 0
    assert "; already done in " in capsys.readouterr().out
    described = json.loads((home / "dataset" / "croissant.json").read_text())
    assert (described["name"], described["license"][0]) == ("cats", "CC-BY-4.0")
    kept, everything = open_dataset("dataset"), open_dataset("dataset", keep="all")
    assert 0 < len(kept) < len(everything) == len(LABELS) - 1
    assert retry("dataset").units_run == 0  # what failed upstream is not tried again here
    assert main(["verify", "dataset"]) == 0
    assert main(command("--title", "cats", "--licence", "MIT", "--min-score", "area>=0.4")) == 3
    assert_named(capsys.readouterr().err, "licence CC-BY-4.0 MIT")


def test_the_plan_writes_nothing(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(["plan", "manifest", "labels", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["stage"], plan["kind"], plan["rows"], plan["units"]) == ("manifest", "dataset", 8, 1)
    assert tree(home) == before
    assert main(["manifest", "labels", "--out", "dataset", "--max-bad", "0.5"]) == 0
    assert len(tree(home / "dataset")) == plan["files"]


def test_embedded_pictures(home: Path) -> None:
    assert main(command("--embed-images")) == 0
    shutil.rmtree(home / "pictures")
    assert len([image for image, _, _ in open_dataset("dataset")]) == len(LABELS) - 1


def test_a_list_names_the_ground_truth(home: Path) -> None:
    (home / "ids.txt").write_text("p4\np0\n")
    assert main(command("--ground-truth", "ids.txt")) == 0
    assert truth() == ["p0", "p4"]
    assert open_artifact("dataset").plan.config["ground_truth"] == ["p0", "p4"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig: ...


def test_a_checkpoint_names_the_ground_truth(home: Path) -> None:
    stage = WholeStage(
        command=make_command("fitted", "checkpoint", NoConfig, {}),
        code_version=1,
        compute=lambda *_: Findings({"seen.json": training_ids_json([], [], ["p0"], ["p1"])}),
    )
    run_whole(stage, NoConfig(), {}, "checkpoint")
    assert main(command("--ground-truth", "checkpoint")) == 0
    assert truth() == ["p0", "p1"]
    assert main(["retry", "dataset", "--max-bad", "0.5"]) == 0


def test_agreement_with_another_method_keeps_and_drops(home: Path, capsys: Capture) -> None:
    assert main(["refine", "maps", "--background", "constant:0.7", "--out", "other", "--max-bad", "0.5"]) == 0
    rule = ("--compare-with", "other", "--min-score", "method_agreement>=0.42")
    assert main(command(*rule)) == 0
    rows = [row for _, _, row in open_dataset("dataset", keep="all")]
    measured = [each["method_agreement"] for row in rows for each in row["objects"]]
    assert any(each < 0.42 for each in measured)
    assert any(each >= 0.42 for each in measured)
    assert 0 < len(open_dataset("dataset")) < len(rows)
    assert main(["status", "dataset"]) == 0
    assert f"  compared: {home}/other (as read)\n" in capsys.readouterr().out
    assert main(command("--min-score", "method_agreement>=0.42")) == 3
    assert_named(capsys.readouterr().err, "compared")


def test_what_was_moved_is_named(home: Path, capsys: Capture) -> None:
    for name in ("maps", "images"):
        (home / name).rename(home / f"moved-{name}")
        assert main(command(*(() if name == "maps" else ("--maps", "moved-maps")))) == 2
        assert_named(capsys.readouterr().err, f"labels --{name}")
    assert main(command("--maps", "moved-maps", "--images", "moved-images")) == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--ground-truth", "nowhere.txt"], "nowhere.txt"),
        (["--ground-truth", "pictures"], "pictures folder"),
        (["--ground-truth", "ids.txt"], "1 id named"),
        (["--ground-truth", "labels"], "labels checkpoint"),
        (["--min-score", "size>=0.5"], "'size'"),
        (["--min-score", "area>=5"], "area 5 0 1"),
        (["--compare-with", "maps"], "maps labels"),
        (["--compare-with", "labels"], "--compare-with labels"),
        (["--maps", "images"], "images maps"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, more: list[str], named: str) -> None:
    (home / "ids.txt").write_text("p0\np99\n")
    before = tree(home)
    refused(capsys, command(*more), named)
    assert tree(home) == before


def test_labels_are_what_is_published(home: Path, capsys: Capture) -> None:
    refused(capsys, ["manifest", "maps", "--out", "dataset"], "maps labels")
    refused(capsys, ["manifest", "labels"], "'--out'")
    assert main(["manifest", "labels", "--out", "dataset", "--max-bad", "0"]) == 0
    assert BROKEN not in [row["id"] for _, _, row in open_dataset("dataset")]


def test_from_pictures_to_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Every stage as it is, with random weights."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "pictures", 4)
    commands = [
        "index folder pictures --out images",
        "extract images --backbone test_vit.r160_in1k --weights random:0 --image-size 32 --out tokens",
        "mask tokens --supports 0 --out maps",
        "refine maps --out labels",
        "manifest labels --out dataset --embed-images",
    ]
    assert all(main(line.split()) in (0, 6) for line in commands), capsys.readouterr().err
    labels = open_dataset("dataset")
    assert len(labels) == 4
    assert {each["name"] for _, _, row in labels for each in row["objects"]} <= {"cat", "dog"}
    assert [step["stage"] for step in labels.provenance] == ["refine", "mask", "extract", "index"]
    described = json.loads((tmp_path / "dataset" / "croissant.json").read_text())
    assert "license" not in described  # random weights have none
