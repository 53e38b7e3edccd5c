"""The commands as a user types them: what they print, how they end, and that their options are the configs' fields."""

import json
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset, write_picture
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.counts import count_of
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes.demo import begin

Capture = pytest.CaptureFixture[str]
demo_command = import_module("maskmill.cli.demo")


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")])
def test_one_is_singular(number: int, text: str) -> None:
    assert count_of(number, "row") == text
    assert count_of(number, "row is", "rows are") == f"{text} {'is' if number == 1 else 'are'}"


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    return str(write_dataset(tmp_path / "pictures", 10))


def answer(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_index_says_what_it_made_and_then_that_it_is_done(pictures: str, tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "images")
    command = ["index", "folder", pictures, "--out", out, "--unit-rows", "4"]
    assert main(command) == 0
    line = capsys.readouterr().out
    assert line.startswith("images: 10 rows, 10 ok; 3 units run in ")
    assert line.endswith(f"→ {out}\n")
    assert main(command) == 0
    assert "; already done in " in capsys.readouterr().out


def test_every_operator_command_answers_in_json(pictures: str, tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "images")
    plan = answer(capsys, "plan", "index", "folder", pictures, "--unit-rows", "4")
    assert (plan["rows"], plan["units"], plan["files"]) == (10, 3, 3 + 4)
    assert not (tmp_path / "images").exists()
    for part in ("1/2", "2/2"):
        made = answer(capsys, "index", "folder", pictures, "--out", out, "--unit-rows", "4", "--part", part)
        assert not made["finished"]
    assert answer(capsys, "status", out)["state"] == "unfinished"
    assert answer(capsys, "verify", out, code=2)["faults"] == []
    assert answer(capsys, "finish", out)["counts"]["ok"] == 10
    assert answer(capsys, "status", out)["state"] == "finished"
    assert answer(capsys, "verify", out)["finished"]
    assert answer(capsys, "retry", out)["units_run"] == 0
    assert len(tree(tmp_path / "images")) == plan["files"]


def test_failed_rows_are_listed_by_id_and_reason(pictures: str, tmp_path: Path, capsys: Capture) -> None:
    (Path(pictures) / "cat/bad.jpg").write_bytes(b"no picture")
    out = str(tmp_path / "images")
    assert main(["index", "folder", pictures, "--out", out]) == 5
    assert_named(capsys.readouterr().err, "1 11")
    assert main(["status", out, "--failed"]) == 0
    assert "failed: undecodable\tcat/bad\n" in capsys.readouterr().out


def test_a_damaged_file_is_named_by_verify(pictures: str, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "images"
    main(["index", "folder", pictures, "--out", str(out)])
    data = bytearray((out / "rows.parquet").read_bytes())
    data[100] ^= 1
    (out / "rows.parquet").write_bytes(data)
    assert main(["verify", str(out)]) == 4
    assert f"{out}/rows.parquet" in capsys.readouterr().err
    assert main(["index", "folder", pictures, "--out", str(out)]) == 0  # rebuilt
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["index", "folder", "nowhere", "--out", "out"], "nowhere"),
        (["index", "folder", "."], "'--out'"),
        (["index", "folder", ".", "--out", "out", "--part", "3/2"], "part 3 2"),
        (["index", "folder", ".", "--out", "out", "--part", "1/2", "--workers", "2"], "--workers"),
        (["index", "folder", ".", "--out", "memory://x", "--workers", "2"], "workers memory://x"),
        (["index", "folder", ".", "--out", "out", "--scheduler", "tcp://192.0.2.1:8786"], "--insecure"),
        (["index", "folder", ".", "--out", "out", "--min-side", "0"], "min_side 0 1"),
        (["status", "nowhere"], "/nowhere"),
        (["verify", "nowhere"], "/nowhere"),
        (["retry", "nowhere"], "/nowhere"),
        (["finish", "nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_picture(tmp_path / "a.png", 0)
    monkeypatch.chdir(tmp_path)
    refused(capsys, arguments, named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_the_demo_runs_every_step_and_tells_what_it_gained(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    shown = capfd.readouterr()
    assert "intact;" in shown.out
    assert "--update" in shown.err
    assert "images: 45 rows, 44 ok, 1 failed (1 undecodable); 1 unit run, 5 skipped" in shown.out
    gained = {line[:50].strip(): float(line[60:].split()[0]) for line in _gains(shown.out)}
    labels, floor = gained["manifest: published labels"], gained["floor: best fixed ellipse, fitted on other classes"]
    assert floor < min(labels, gained["mask: maps of the backbone alone"])
    assert gained["train: the student"] > gained["train: background everywhere"]
    assert "<!doctype html>" in (tmp_path / "demo/report.html").read_text()[:100].lower()
    assert shown.out.splitlines()[-1].endswith("--set extract.backbone=vit_small_patch8_224.dino")
    assert shown.out.splitlines()[-2].endswith(f" s: {tmp_path}/demo/report.html")

    before = tree(tmp_path / "demo/maskmill-work")
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    again = capfd.readouterr()
    assert re.fullmatch(f"# .* {re.escape(str(tmp_path))}/demo", again.out.splitlines()[0])
    assert "units run" not in again.out
    assert _gains(again.out) == _gains(shown.out)
    assert tree(tmp_path / "demo/maskmill-work") == before


def test_a_demo_that_was_stopped_goes_on(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between its steps, as far as to the run of its recipe."""
    monkeypatch.chdir(tmp_path)
    whys = list[str]()
    for steps_more in (0, 1, 0, 1, 3, 2):
        steps_left = steps_more

        def step(arguments: Sequence[str]) -> int:
            nonlocal steps_left
            steps_left -= 1
            return main(arguments) if steps_left >= 0 else 130

        monkeypatch.setattr(demo_command, "main", step)
        assert main(["demo"]) == 130
        shown = capfd.readouterr()
        assert "expected" not in shown.err
        whys.append([line for line in shown.out.splitlines() if line.startswith("# ")][-1])
    begun = ["list the pictures", "pictures were added", "append them", "show its progress", "what a run would do"]
    met = [next(name for name in begun if name in why) for why in whys]
    assert met == [*begun, begun[-1]]
    assert open_artifact("maskmill-demo/images").summary.counts["ok"] == 44


def test_a_demo_leaves_alone_what_is_not_its_own(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maskmill-demo").mkdir()
    (tmp_path / "maskmill-demo/thesis.txt").write_text("mine")
    assert main(["demo"]) == 2
    said = capfd.readouterr().err
    assert_named(said, "thesis.txt --out")
    assert main(["demo", "--images", "nowhere", "--out", "demo"]) == 2
    assert "--images" in capfd.readouterr().err
    assert not (tmp_path / "demo").exists()
    begin(place("edited"))
    (tmp_path / "edited/demo.toml").write_text("title = 'mine'")
    assert main(["demo", "--out", "edited"]) == 2
    said = capfd.readouterr().err
    assert f"`maskmill run {tmp_path}/edited/demo.toml`" in said
    assert said.count("\n") == 1
    assert (tmp_path / "edited/demo.toml").read_text() == "title = 'mine'"


def _gains(shown: str) -> list[str]:
    lines = shown.partition("# what each step gained")[2].splitlines()[2:]
    return lines[: lines.index("")]


def test_the_demo_on_pictures_of_ones_own(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "own", 6)
    assert main(["demo", "--images", "own"]) == 0
    shown = capfd.readouterr()
    assert "result: dataset → " in shown.out
    assert shown.out.endswith(": maskmill run --images own --set extract.backbone=vit_small_patch8_224.dino\n")
    assert (tmp_path / "maskmill-demo/report.html").exists()
    write_dataset(tmp_path / "own", 8)
    assert main(["demo", "--images", "own"]) == 0
    assert "images: 8 rows, 8 ok; 1 unit run, 1 skipped" in capfd.readouterr().out
