"""`maskmill gc`: what stays and why, what goes, and what it never touches."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builders.configs import make_command
from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset
from builders.small_labels import make_labels, publish
from builders.small_runs import UNITS_OF_4, echo, index, toy
from builders.toy import ToyConfig
from faults.crash import Fault, in_child, kill, operations
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import ARTIFACT
from maskmill.manifests.artifact.plan import PLAN
from maskmill.manifests.files import lock, sealed
from maskmill.manifests.files.place import place
from maskmill.pipeline.answers.gc import clean
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.recipes.chain import LAST_RUN
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.stage import Findings, WholeStage

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images → toys → echoes, and images → others."""
    home = tmp_path_factory.mktemp("made")
    write_dataset(home / "pictures")
    index(home / "pictures", home / "work" / "images")
    toy(home / "work" / "images", home / "work" / "toys")
    one_unit = replace(UNITS_OF_4, unit_rows=10)
    toy(home / "work" / "images", home / "work" / "others", one_unit, ToyConfig(word="longer"))
    echo(home / "work" / "toys", home / "work" / "echoes")
    return home


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path / "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    word: str = ""


def write_metrics(out: Path, toys: Path, images: Path) -> None:
    """A metrics artifact, of a stage that looks at nothing."""
    judge = WholeStage(
        command=make_command("judge", "metrics", JudgeConfig, {"toys": "toys", "images": "images"}),
        code_version=1,
        compute=lambda config, inputs, underway: Findings({"metrics.json": b"{}"}, {}, ()),
    )
    run_whole(judge, JudgeConfig(), {"toys": str(toys), "images": str(images)}, str(out))


def last_run(work: Path, *names: str) -> None:
    sealed.write(place(work), LAST_RUN, {"title": "", "artifacts": {name: name for name in names}})


def kept(work: Path) -> dict[str, str]:
    return {each.name: each.why for each in clean(str(work), delete=False).to_keep}


def folders(work: Path) -> set[str]:
    return {path.name for path in work.iterdir() if path.is_dir()}


def test_the_last_run_stays_with_what_it_was_made_from(work: Path, capsys: Capture) -> None:
    last_run(work, "echoes")
    before = tree(work)
    assert main(["gc", "work", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {each["name"]: each["why"] for each in told["entries"]} == {
        "echoes": "made or used by the last run",
        "toys": "echoes was made from it",
        "images": "toys was made from it",
        "others": "",
    }
    sizes = sum(path.stat().st_size for path in (work / "others").rglob("*") if path.is_file())
    assert (told["bytes"], told["deleted"]) == (sizes, False)
    assert tree(work) == before
    assert main(["gc", "work"]) == 0
    assert "1 can go, " in capsys.readouterr().out
    assert tree(work) == before
    assert main(["gc", "work", "--yes"]) == 0
    assert "1 deleted, " in capsys.readouterr().out
    assert tree(work) == {name: digest for name, digest in before.items() if not name.startswith("others/")}
    assert folders(work) == {"images", "toys", "echoes"}
    assert main(["gc", "work", "--yes"]) == 0
    assert "0 deleted, 0 B" in capsys.readouterr().out


def test_without_a_last_run_all_that_no_result_was_made_from_can_go(work: Path) -> None:
    assert kept(work) == {}
    points = operations(lambda: clean(str(work), delete=True) and None, work)
    assert folders(work) == set()
    renamed = [point.rpartition("/")[2] for point in points if point.startswith("os.rename")]
    assert renamed.index("echoes") < renamed.index("toys") < renamed.index("images"), "readers first"
    assert work.is_dir()


def test_a_dataset_stays_with_its_ancestors(tmp_path: Path) -> None:
    make_labels(tmp_path / "work")
    publish(tmp_path / "work")
    shutil.copytree(tmp_path / "work" / "labels", tmp_path / "work" / "copied")
    assert set(kept(tmp_path / "work")) >= {"dataset", "labels", "maps", "images"}
    shutil.rmtree(tmp_path / "work" / "labels")
    shutil.rmtree(tmp_path / "work" / "copied")
    shutil.move(tmp_path / "work" / "maps", tmp_path / "work" / "moved")
    assert set(kept(tmp_path / "work")) == {"dataset", "moved", "images"}, "told by the dataset's own account"
    clean(str(tmp_path / "work"), delete=True)
    assert verify(str(tmp_path / "work" / "dataset")).exit_code == 0


def test_what_is_unfinished_stays_with_what_it_reads(work: Path) -> None:
    (work / "echoes" / ARTIFACT).unlink()
    assert kept(work) == {
        "echoes": "unfinished",
        "toys": "echoes was made from it",
        "images": "toys was made from it",
    }
    clean(str(work), delete=True)
    assert folders(work) == {"images", "toys", "echoes"}


def test_while_a_run_holds_one_nothing_goes(work: Path, capsys: Capture) -> None:
    before = tree(work)
    with lock.hold_lock(place(work / "others")):
        assert kept(work) == {"others": "held by a run", "images": "others was made from it"}
        assert main(["gc", "work", "--yes"]) == 75
    assert "others" in capsys.readouterr().err
    assert tree(work) == before


@pytest.mark.parametrize("put", ["file", "folder", "link to a file", "link to a folder"])
def test_what_is_not_its_own_keeps_an_artifact(work: Path, put: str) -> None:
    stranger = work / "others" / "square.zarr" / "mine"
    if put == "file":
        stranger.write_text("mine")
    elif put == "folder":
        stranger.mkdir()
        (stranger / "notes.txt").write_text("mine")
    else:
        stranger.symlink_to(work.parent / ("pictures/cat/0.png" if put.endswith("file") else "pictures"))
    assert_named(kept(work)["others"], "files 1 'square.zarr/mine")
    before, pictures = tree(work / "others"), tree(work.parent / "pictures")
    clean(str(work), delete=True)
    assert folders(work) == {"others", "images"}
    assert (tree(work / "others"), tree(work.parent / "pictures")) == (before, pictures)


def test_links_and_what_is_no_artifact_are_left(work: Path) -> None:
    outside = work.parent / "outside"
    shutil.move(work / "others", outside)
    (work / "linked").symlink_to(outside)
    (work / "toys" / "log").rename(work.parent / "log")
    (work / "toys" / "log").symlink_to(work.parent / "log")
    (work / "notes").mkdir()
    (work / "notes" / "text.txt").write_text("mine")
    (work / "deep" / "down").mkdir(parents=True)
    shutil.copytree(outside, work / "deep" / "down" / "others")
    (work / "file.txt").write_text("mine")
    before = {name: tree(work.parent / name) for name in ("outside", "log", "work/deep", "work/notes")}
    clean(str(work), delete=True)
    assert {name: tree(work.parent / name) for name in before} == before
    assert (work / "linked").is_symlink()
    assert (work / "file.txt").exists()
    assert "toys" in folders(work), "a log that is a link is not its own"


def test_a_work_folder_behind_a_link_is_that_folder(work: Path) -> None:
    last_run(work, "echoes")
    (work.parent / "link").symlink_to(work)
    clean(str(work.parent / "link"), delete=True)
    assert folders(work) == {"images", "toys", "echoes"}


def test_of_what_cannot_be_read_nothing_above_is_known_so_nothing_goes(work: Path, capsys: Capture) -> None:
    (work / "echoes" / PLAN).write_bytes(b"{}")
    assert kept(work)["echoes"].startswith("cannot be read: ")
    before = tree(work)
    assert main(["gc", "work", "--yes"]) == 2
    assert "echoes" in capsys.readouterr().err
    (work / "echoes" / PLAN).unlink()
    last_run(work)
    (work / LAST_RUN).write_bytes(b"{}")
    assert main(["gc", "work", "--yes"]) == 4
    assert set(before) - {f"echoes/{PLAN}"} <= set(tree(work))


def test_killed_at_every_operation_it_leaves_artifacts_whole_or_is_ended_by_the_next(made: Path, work: Path) -> None:
    last_run(work, "echoes")

    def cleaned() -> None:
        clean(str(work), delete=True)

    points = operations(cleaned, work)
    assert len(points) > 10
    for number in range(1, len(points) + 1):
        shutil.rmtree(work)
        shutil.copytree(made / "work", work)
        last_run(work, "echoes")
        assert in_child(cleaned, Fault(work, number, kill)).code is None
        for name in folders(work):
            assert name.startswith(".") or verify(str(work / name)).exit_code == 0, (number, name)
        cleaned()
        assert sorted(os.listdir(work)) == ["echoes", "images", LAST_RUN, "toys"], number


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["gc", "nowhere"], "/nowhere"),
        (["gc", "pictures"], "/pictures"),
        (["gc", "work/images"], "/work/images"),
        (["gc", "s3://bucket/work"], "s3://bucket/work"),
        (["gc"], "'WORK'"),
    ],
)
def test_a_mistake_is_one_sentence(work: Path, capsys: Capture, arguments: list[str], named: str) -> None:
    refused(capsys, arguments, named)


def test_metrics_stay_as_long_as_what_they_judge(work: Path) -> None:
    for name, of in (("good", "toys"), ("stale", "others")):
        write_metrics(work / name, work / of, work / "images")
    last_run(work, "toys")
    assert kept(work)["good"] == "scores toys"
    clean(str(work), delete=True)
    assert folders(work) == {"images", "toys", "good"}
