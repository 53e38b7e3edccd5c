"""`maskmill pixels` and `maskmill plan pixels`: what they print, and the sentence for each mistake."""

import json
import re
from pathlib import Path

import pytest

from builders import small_runs
from builders.mistakes import refused
from builders.small_dataset import tree, write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.pixels import open_pixels

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_runs.index(write_dataset(tmp_path / "pictures"), tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more: str, **options: str) -> list[str]:
    asked = {"image-size": "24x32", "out": "pixels", **options}
    return ["pixels", "images", *(word for name, value in asked.items() for word in (f"--{name}", value)), *more]


def test_it_says_what_it_made_and_then_that_it_is_done(home: Path, capsys: Capture) -> None:
    asked = command(fit="pad", **{"unit-rows": "4"})
    assert main(asked) == 0
    assert re.fullmatch(rf"pixels: 10 rows, 10 ok; 3 units run in \d+\.\d s → {home}/pixels\n", capsys.readouterr().out)
    made = open_pixels("pixels")
    assert (made.size, made.fit) == ((24, 32), "pad")
    assert made.read("cat/0").shape == (24, 32, 3)
    assert main(asked) == 0
    assert "; already done in " in capsys.readouterr().out


def test_one_number_is_a_square_and_a_crop(home: Path) -> None:
    assert main(command(**{"image-size": "16"})) == 0
    assert (open_pixels("pixels").size, open_pixels("pixels").fit) == ((16, 16), "crop")


def test_the_plan_says_bytes_and_hours_and_writes_nothing(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(["plan", *command()]) == 0
    said = capsys.readouterr().out
    assert said.startswith("pixels would make pixels, fingerprint ")
    assert "  10 rows in 1 unit of 1,024, 7 files\n" in said
    assert f"  pixels: {10 * 24 * 32 * 3 / 1000:.1f} kB\n" in said
    assert re.search(r"  time: \d+ s in one process on this machine \(10 rows took \d+\.\d s\)\n", said)
    assert tree(home) == before
    assert main(["plan", *command("--json", **{"unit-rows": "4"})]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["bytes_per_field"] == {"pixels": planned["total_bytes"]} == {"pixels": 10 * 24 * 32 * 3}
    assert main(command(**{"unit-rows": "4"})) == 0
    assert len(tree(home / "pixels")) == planned["files"]


def test_another_configuration_is_refused_by_its_name(home: Path, capsys: Capture) -> None:
    assert main(command()) == 0
    before = tree(home)
    for other, name in (({"fit": "squash"}, "fit"), ({"image-size": "32"}, "image_size")):
        assert main(command(**other)) == 3
        assert name in capsys.readouterr().err
    assert tree(home) == before


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"image-size": "big"}, "'--image-size' 'big'"),
        ({"image-size": "32x"}, "'32x'"),
        ({"image-size": "-32"}, "'-32'"),
        ({"image-size": "0"}, "0x0 1 4096"),
        ({"image-size": "64x5000"}, "64x5000 4096"),
        ({"fit": "stretch"}, "'--fit' 'stretch'"),
    ],
)
@pytest.mark.parametrize("plan", [False, True], ids=["run", "plan"])
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, asked: dict[str, str], named: str, plan: bool) -> None:
    before = tree(home)
    refused(capsys, [*(["plan"] if plan else []), *command(**asked)], named)
    assert tree(home) == before


def test_a_directory_with_other_things_in_it(home: Path, capsys: Capture) -> None:
    before = tree(home)
    refused(capsys, command(out="pictures"), "/pictures empty")
    assert tree(home) == before


def test_a_size_must_be_said(home: Path, capsys: Capture) -> None:
    refused(capsys, ["pixels", "images", "--out", "pixels"], "'--image-size'")


def test_what_is_no_images_artifact(home: Path, capsys: Capture) -> None:
    assert main(command()) == 0
    (home / "pixels").rename(home / "images2")
    asked = command()
    asked[1] = "images2"
    refused(capsys, asked, "images2 pixels images")


def test_without_any_good_picture_nothing_can_be_measured(home: Path, capsys: Capture) -> None:
    for path in (home / "pictures").rglob("*.png"):
        path.unlink()
    refused(capsys, ["plan", *command()], "images `maskmill status")
