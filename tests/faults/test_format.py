"""Artifacts of another format: the first one is read for ever, and a newer one is refused by both versions."""

import json
from pathlib import Path

import numpy as np
import pytest

from faults.cases import CASES, Home, assert_sound, copied, files, home_of, reading_code, tree
from faults.crash import as_command, in_child
from faults.damage import resealed
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.fingerprint import FORMAT_VERSION
from maskmill.manifests.pictures.palette import decode_label_map

FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format-1"


@pytest.mark.parametrize("name", ["images", "toys"])
def test_the_first_format_is_read(name: str) -> None:
    before = tree(FORMAT_1 / name)
    assert reading_code(FORMAT_1 / name) == 0
    assert in_child(lambda: assert_sound(FORMAT_1 / name)).code == 0
    assert tree(FORMAT_1 / name) == before


def test_what_the_first_format_holds() -> None:
    """The pictures that the fixtures' script describes, found again from their files."""
    images, toys = open_artifact(str(FORMAT_1 / "images"), "images"), open_artifact(str(FORMAT_1 / "toys"), "toys")
    rows = images.rows(["id", "status", "reason", "width", "height", "labels"]).to_pylist()
    assert [row["id"] for row in rows] == ["bird/a", "bird/b", "boat/c", "boat/d", "boat/e"]
    assert [row["reason"] for row in rows] == ["", "", "", "undecodable", ""]
    assert [row["height"] for row in rows] == [9, 10, 11, None, 13]
    assert [row["labels"] for row in rows] == [[1], [1], [2], [2], [2]]
    masks = images.cells("mask", range(5))
    assert [mask is None for mask in masks] == [False, False, True, True, True]
    wanted_HW = np.zeros((9, 12), np.uint8)
    wanted_HW[2:5, 3:8] = 1
    np.testing.assert_array_equal(decode_label_map(masks[0] or b""), wanted_HW)
    assert [row["status"] for row in toys.rows(["status"]).to_pylist()] == ["ok", "ok", "ok", "upstream", "ok"]
    values = np.arange(12, dtype=np.float32).reshape(3, 4) + 1  # the first twelve values of each ramp, and 1 for "a"
    zeros = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(toys.read("square", range(5)), [values, values, values, zeros, values])
    np.testing.assert_array_equal(toys.read("wide", [4]), [np.arange(10, dtype=np.float32).reshape(2, 5) + 1])


@pytest.mark.parametrize("name", ["images", "toys"])
def test_a_newer_format_is_refused(place: Path, name: str) -> None:
    """Row 37: by a reader, by `verify`, and by the run that would write into it; nothing is changed."""
    newer = copied(FORMAT_1 / name, place / name)
    resealed(newer / "plan.json", lambda plan: plan.update(format=FORMAT_VERSION + 1, news="from the future"))
    before = tree(newer)
    case = {"images": CASES["index"], "toys": CASES["toy"]}[name]
    copied(FORMAT_1 / "images", place / "index")
    both = f"has artifact format {FORMAT_VERSION + 1} and this maskmill reads format {FORMAT_VERSION}"
    for function in (lambda: reading(newer), lambda: Home(case, place).run(newer), lambda: assert_sound(newer)):
        ended = in_child(as_command(function))
        assert ended.code == 3, ended
        assert both in ended.stderr
    assert tree(newer) == before


def reading(out: Path) -> None:
    open_artifact(str(out)).rows()


def test_an_unknown_setting_is_refused(place: Path) -> None:
    """A plan of a newer maskmill with a setting more, of the same format: named, not passed over."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()
    home.made(out)
    resealed(out / "plan.json", lambda plan: plan["config"].update(novelty=1))
    ended = home.tried(out)
    assert ended.code == 3, ended
    assert "novelty = 1" in ended.stderr
    ended = in_child(as_command(lambda: home.finish(out)))
    assert ended.code == 4, ended
    assert "novelty" in ended.stderr


def test_the_fixtures_are_small_and_of_the_first_format() -> None:
    assert sum((FORMAT_1 / name).stat().st_size for name in files(FORMAT_1)) < 60_000
    for name in ("images", "toys"):
        assert json.loads((FORMAT_1 / name / "plan.json").read_bytes())["format"] == 1
