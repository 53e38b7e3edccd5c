"""Something changed since the artifact was made: exit 3 and nothing written, or exactly what has changed made again."""

import dataclasses
import hashlib
import inspect
import os
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import toy
from builders.mistakes import assert_named
from faults.cases import (
    CASES,
    IDS,
    UNIT_ROWS,
    Case,
    Home,
    Subject,
    content,
    copied,
    home_of,
    make_picture,
    picture_of,
    reading_code,
    tree,
    with_run_unit,
)
from faults.crash import as_command, in_child
from maskmill.manifests.artifact.config import spec_of
from maskmill.manifests.datasets.layouts import (
    SOURCES,
    Coco20iSource,
    CocoSource,
    DatasetSource,
    TableSource,
    VocSource,
)
from maskmill.manifests.pictures.sources import read_source
from maskmill.stages.index import stage as index
from maskmill.stages.index.config import IndexConfig

CHANGED = "dog/1"


def other_values(value: Any, hint: Any) -> Iterator[Any]:
    """Values of a setting that are not the one it has."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif typing.get_origin(hint) is typing.Literal:
        yield from (choice for choice in typing.get_args(hint) if choice != value)
    elif isinstance(value, str):
        yield f"{value}-other"
    elif isinstance(value, tuple):
        yield (*value, "other")


def other_configs(config: Any, others: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Each field of a configuration changed in turn: its name, the configuration, and whether it changes bytes.

    `others`: values to use where not any will do.
    """
    hints = inspect.get_annotations(type(config), eval_str=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        spec = spec_of(field)
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and spec.parse is None:
            inner = [
                (n, dataclasses.replace(config, **{field.name: c}), m)
                for n, c, m in other_configs(value, others, f"{name}.")
            ]
        else:
            values = others.get(name) or list(other_values(value, hints[field.name]))
            assert values, f"give {name} another value in other_values"
            inner = [(name, dataclasses.replace(config, **{field.name: other}), spec.changes_bytes) for other in values]
        yield from inner


def test_every_setting_in_turn(subject: Subject, out: Path) -> None:
    """Row 18: refused by the setting's name; one that changes no bytes, or adds a field, is none of this."""
    home, stage = subject.home, subject.home.case.stage
    copied(subject.reference, out)
    tried = 0
    for name, config, matters in other_configs(home.case.config(home.path), home.case.others):
        if name in stage.selects:
            continue
        ended = home.tried(out, config=config)
        if matters:
            assert ended.code == 3, (name, ended)
            assert_named(ended.stderr, f"{out} {name}")
        else:
            assert ended.code == 0, (name, ended)
            assert ended.answer["run"] == 0
        assert tree(out) == subject.tree, name
        tried += 1
    assert tried


def test_another_layout_is_another_configuration(place: Path) -> None:
    home = home_of(CASES["index"], place)
    out = home.new_out()
    home.made(out)
    before = tree(out)
    others: dict[str, DatasetSource] = {
        "voc": VocSource(root=str(place), split="train"),
        "coco": CocoSource(images=str(place), annotations=str(place / "a.json")),
        "coco20i": Coco20iSource(root=str(place)),
        "table": TableSource(file=str(place / "a.csv")),
    }
    assert {*others, "folder"} == set(SOURCES)
    for source in others.values():
        ended = home.tried(out, config=IndexConfig(source=source))
        assert ended.code == 3, ended
        assert "source." in ended.stderr
        assert tree(out) == before


@pytest.mark.parametrize("change", ["code_version", "libraries", "device"])
def test_another_program(subject: Subject, out: Path, change: str) -> None:
    """A stage that computes otherwise, versions of libraries that change numbers, another kind of processor."""
    stage = subject.home.case.stage
    copied(subject.reference, out)
    others = {
        "code_version": dataclasses.replace(stage, code_version=stage.code_version + 1),
        "libraries": dataclasses.replace(stage, libraries=("click",)),
        "device": dataclasses.replace(stage, device=lambda config: "cuda"),
    }
    ended = subject.home.tried(out, stage=others[change])
    assert ended.code == 3, ended
    assert change in ended.stderr
    assert tree(out) == subject.tree


def test_another_unit_size(subject: Subject, out: Path) -> None:
    copied(subject.reference, out)
    ended = subject.home.tried(out, unit_rows=UNIT_ROWS + 1)
    assert ended.code == 3, ended
    assert_named(ended.stderr, f"unit_rows {UNIT_ROWS} {UNIT_ROWS + 1}")
    assert tree(out) == subject.tree
    assert subject.home.made(out, unit_rows=0)["run"] == 0
    assert tree(out) == subject.tree


def changed_pictures(home: Path) -> None:
    picture = picture_of(home, CHANGED)
    was = picture.stat()
    make_picture(home, CHANGED, seed=96)
    os.utime(picture, ns=(was.st_atime_ns, was.st_mtime_ns))  # the clock tells nothing


def added_pictures(home: Path) -> None:
    make_picture(home, "cat/00", seed=20)  # sorts before all others


def removed_pictures(home: Path) -> None:
    picture_of(home, CHANGED).unlink()


CHANGES = {"changed": changed_pictures, "added": added_pictures, "removed": removed_pictures}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_picture_since_it_was_made(subject: Subject, place: Path, change: str) -> None:
    """Row 20: only the unit of that picture is made again, and the result is what a new artifact would hold."""
    home = home_of(subject.home.case, place)
    out = home.new_out()
    home.made(out)
    before = tree(out)
    CHANGES[change](place)
    if change != "changed" and home.case.stage.command.follows_source:
        ended = home.tried(out)
        assert ended.code == 3, ended
        assert "--update" in ended.stderr
        assert tree(out) == before
    home.remade_inputs(update=True)
    assert home.made(out, update=True)["run"] == 1
    assert home.made(out, update=True)["run"] == 0
    fresh = home.new_out()
    home.made(fresh)
    found, wanted = content(out), content(fresh)
    if change == "changed":
        assert tree(out) == tree(fresh) != before
    elif change == "removed":
        gone = found.pop(CHANGED)
        status = ("failed", "missing") if home.case.stage.command.follows_source else ("upstream", "missing")
        assert (gone["status"], gone["reason"]) == status
        wanted.pop(CHANGED, None)
    assert found == wanted
    assert reading_code(out) == 0


def test_a_picture_that_comes_back(subject: Subject, place: Path) -> None:
    """Taken away and put back, the artifact ends as it began."""
    home = home_of(subject.home.case, place)
    out = home.new_out()
    home.made(out)
    before = content(out)
    removed_pictures(place)
    home.remade_inputs(update=True)
    home.made(out, update=True)
    make_picture(place, CHANGED, seed=IDS.index(CHANGED))
    home.remade_inputs(update=True)
    assert home.made(out, update=True)["run"] == 1
    assert content(out) == before


def test_reordered_rows(place: Path) -> None:
    """A table in another order names the same pictures: nothing is made again, in no stage."""
    home_of(CASES["index"], place)
    table = place / "pictures" / "table.csv"
    lines = [f"{identifier}.png,{identifier.partition('/')[0]}\n" for identifier in IDS]
    table.write_text("".join(["path,label\n", *lines]))
    listing = Case(stage=index.STAGE, config=lambda home: IndexConfig(source=TableSource(file=str(table))))
    images, toys = Home(listing, place), Home(CASES["toy"], place)
    images.made(place / "index")
    out = toys.new_out()
    toys.made(out)
    before = [tree(place / "index"), tree(out)]
    table.write_text("".join(["path,label\n", *reversed(lines)]))
    assert images.made(place / "index")["run"] == 0
    assert toys.made(out)["run"] == 0
    assert [tree(place / "index"), tree(out)] == before


def test_swapped_while_it_is_read(place: Path) -> None:
    """Row 21: a picture replaced as soon as it was read has the digest, and the size, of the bytes that were read."""
    home = home_of(CASES["index"], place)
    picture, out = picture_of(place, CHANGED), home.new_out()
    data = picture.read_bytes()
    read = read_source

    def swapping(root: str, uri: str) -> bytes:
        found = read(root, uri)
        if uri == f"{CHANGED}.png":
            make_picture(place, CHANGED, seed=98)
        return found

    def run() -> Any:
        there: Any = index
        there.read_source = swapping
        return home.run(out)

    assert in_child(as_command(run)).code == 0
    assert picture.read_bytes() != data
    row = content(out)[CHANGED]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["bytes"], row["height"]) == (len(data), 10 + IDS.index(CHANGED))
    assert home.made(out)["run"] == 1
    assert content(out)[CHANGED]["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()


def test_changed_since_it_was_indexed(place: Path) -> None:
    """A stage that decodes fails the row of a picture with other bytes, and makes it once it is indexed again."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()
    changed_pictures(place)
    assert home.made(out)["counts"]["reasons"] == {"changed": 1}
    assert content(out)[CHANGED]["reason"] == "changed"
    home.remade_inputs()
    assert home.made(out)["run"] == 1
    assert content(out)[CHANGED]["status"] == "ok"


def test_swapped_while_a_stage_reads_it(place: Path) -> None:
    """What the stage has read once is what it computes on: the second artifact is that of the picture that was read."""
    home = home_of(CASES["toy"], place)
    out, wanted = home.new_out(), home.new_out()
    home.made(wanted)
    read = read_source

    def swapping(root: str, uri: str) -> bytes:
        found = read(root, uri)
        make_picture(place, uri.removesuffix(".png"), seed=98)
        return found

    def run() -> Any:
        there: Any = toy
        there.read_source = swapping
        return home.run(out)

    assert in_child(as_command(run)).code == 0
    assert tree(out) == tree(wanted)


def test_the_input_is_another_artifact(subject: Subject, place: Path) -> None:
    """An input made anew with another configuration is named; one that is gone or unfinished stops the run."""
    home = home_of(subject.home.case, place)
    if not home.case.inputs:
        pytest.skip("reads no artifact")
    out = home.new_out()
    home.made(out)
    before = tree(out)
    name, *_ = home.case.inputs.values()
    (place / name / "artifact.json").rename(place / "kept.json")
    ended = home.tried(out)
    assert ended.code == 2
    assert f"{place / name} " in ended.stderr
    (place / name / "plan.json").unlink()
    ended = home.tried(out)
    assert ended.code == 2
    assert f"{place / name}" in ended.stderr
    assert tree(out) == before


def test_only_what_was_planned_is_computed(subject: Subject, out: Path) -> None:
    """A finished artifact is found done without one call of its stage."""
    copied(subject.reference, out)

    def never(*arguments: Any) -> Any:
        raise AssertionError

    for trust in (False, True):
        assert subject.home.made(out, stage=with_run_unit(subject.home.case, never), trust=trust)["skipped"] == 4
    assert tree(out) == subject.tree
