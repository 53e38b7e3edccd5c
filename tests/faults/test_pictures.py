"""Pictures and names as people and attackers have them: each row gets its reason, and nothing outside is touched."""

import json
import os
import resource
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builders import picture_zoo
from faults.cases import CASES, IDS, Case, Home, content, files, home_of, make_picture, picture_of, tree
from faults.crash import as_command, in_child
from faults.damage import GROWTH_MB, resealed
from maskmill.manifests.artifact import tables
from maskmill.manifests.artifact.artifact import ROWS, open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.errors import Reason, RowFailed
from maskmill.manifests.files.place import Place
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.stages.index import stage as index
from maskmill.stages.index.config import IndexConfig

VICTIM = "dog/1"
FOLDER = Case(stage=index.STAGE, config=lambda home: IndexConfig(source=FolderSource(root=str(home / "pictures"))))


def rewritten_rows(out: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Changes the row list of a finished artifact as somebody would who knows how its digests are made."""

    def rewrite() -> dict[str, Any]:
        artifact = open_artifact(str(out))
        table = artifact.rows()
        rows = table.to_pylist()
        change(rows)
        made = pa.RecordBatch.from_pylist(rows, table.schema)
        return tables.write_batches(Place(str(out)), ROWS, table.schema, [made])[0].as_json()

    ended = in_child(rewrite)
    assert ended.code == 0, ended
    resealed(out / "artifact.json", lambda summary: summary["files"].update({ROWS: ended.answer}))


ESCAPES = {
    "up": ("../secret.png", Reason.OUTSIDE_ROOT),
    "up from within": ("cat/../../secret.png", Reason.OUTSIDE_ROOT),
    "absolute": ("{home}/secret.png", Reason.OUTSIDE_ROOT),
    "link": ("link.png", Reason.OUTSIDE_ROOT),
    "link to a folder": ("linked/secret.png", Reason.OUTSIDE_ROOT),
    "nul": ("dog/1.png\0/../../secret.png", Reason.OUTSIDE_ROOT),
    "windows": ("C:\\secret.png", Reason.MISSING),
    "windows, up": ("..\\secret.png", Reason.MISSING),
}


@pytest.mark.parametrize("escape", list(ESCAPES))
def test_a_row_that_leads_out(place: Path, escape: str) -> None:
    """Row 26: the row fails, with the digest of the secret beside it or not, and nobody opens the secret."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()
    secret = place / "secret.png"
    shutil.copy(picture_of(place, VICTIM), secret)
    (place / "pictures" / "link.png").symlink_to(secret)
    (place / "pictures" / "linked").symlink_to(place, target_is_directory=True)
    uri, reason = ESCAPES[escape]

    def lead_out(rows: list[dict[str, Any]]) -> None:
        rows[IDS.index(VICTIM)]["uri"] = uri.format(home=place)

    rewritten_rows(place / "index", lead_out)

    def run_and_listen() -> Any:
        opened: list[str] = []
        sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
        home.run(out)
        return [path for path in opened if os.path.realpath(path) == os.path.realpath(secret)]

    ended = in_child(as_command(run_and_listen))
    assert ended.code == 0, ended
    assert ended.answer == []
    rows = content(out)
    assert (rows[VICTIM]["status"], rows[VICTIM]["reason"]) == ("failed", reason)
    assert [row["status"] for row in rows.values()].count("ok") == 8


def test_rows_that_stand_twice(place: Path) -> None:
    """Refused by the id, and nothing is begun."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()
    rewritten_rows(place / "index", lambda rows: rows[4].update(id=rows[5]["id"]))
    ended = home.tried(out)
    assert ended.code == 2, ended
    assert repr(IDS[5]) in ended.stderr
    assert not out.exists()


def test_digests_that_are_swapped(place: Path) -> None:
    """Two pictures' digests exchanged in a row list that is vouched for: both rows fail as changed."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()

    def swap(rows: list[dict[str, Any]]) -> None:
        rows[6]["sha256"], rows[7]["sha256"] = rows[7]["sha256"], rows[6]["sha256"]

    rewritten_rows(place / "index", swap)
    assert home.made(out, max_bad=0.3)["counts"]["reasons"] == {"changed": 2}
    assert [content(out)[IDS[at]]["reason"] for at in (6, 7)] == ["changed", "changed"]


def test_records_whose_digests_are_swapped(place: Path) -> None:
    """Two units' files exchanged in their records, without the ledger's digest: refused by `verify`."""
    home = home_of(CASES["toy"], place)
    out = home.new_out()
    home.made(out)
    name = "square.zarr/c/0/0/0"
    record = json.loads((out / "ledger/000/00001.json").read_bytes())
    resealed(
        out / "ledger/000/00000.json",
        lambda first: first["files"].update({name: record["files"]["square.zarr/c/1/0/0"]}),
    )
    ended = in_child(as_command(lambda: open_artifact(str(out)).read("square", [0])))
    assert ended.code == 4, ended
    assert str(out / name) in ended.stderr


def test_one_id_for_two_pictures(place: Path) -> None:
    """Row 27: refused naming both, and nothing is begun."""
    (place / "pictures").mkdir()
    make_picture(place, "cat/1", seed=1)
    shutil.copy(picture_of(place, "cat/1"), place / "pictures/cat/1.jpg")
    home = Home(FOLDER, place)
    out = home.new_out()
    ended = home.tried(out)
    assert ended.code == 2, ended
    assert "'cat/1.jpg' and 'cat/1.png'" in ended.stderr
    assert not out.exists()


def test_one_id_in_two_unicode_forms(place: Path) -> None:
    """Names that a person cannot tell apart are one id."""
    names = [unicodedata.normalize(form, "cat/é") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    for seed, name in enumerate(names):
        make_picture(place, name, seed)
    home = Home(FOLDER, place)
    if len(list((place / "pictures/cat").iterdir())) < 2:
        pytest.skip("this file system keeps one of the two")
    out = home.new_out()
    ended = home.tried(out)
    assert ended.code == 2, ended
    assert repr(names[0]) in ended.stderr
    assert not out.exists()


def test_ids_that_differ_by_case_alone(place: Path) -> None:
    """Two pictures, in every stage: an id is never the name of a file."""
    for seed, name in enumerate(["cat/a", "cat/A", "CAT/a"]):
        make_picture(place, name, seed)
    toys = Home(Case(stage=CASES["toy"].stage, config=CASES["toy"].config, inputs={"images": "images"}), place)
    Home(FOLDER, place).made(place / "images")
    out = toys.new_out()
    assert toys.made(out)["counts"]["ok"] == 3
    rows = content(out)
    assert set(rows) == {"cat/a", "cat/A", "CAT/a"}
    assert len({row["square_sha256"] for row in rows.values()}) == 3


def test_the_same_picture_under_two_ids(place: Path) -> None:
    make_picture(place, "cat/a", 1)
    make_picture(place, "dog/b", 1)
    home = Home(FOLDER, place)
    out = home.new_out()
    home.made(out)
    rows = content(out)
    assert rows["cat/a"]["sha256"] == rows["dog/b"]["sha256"]
    assert all(row["status"] == "ok" for row in rows.values())


def test_no_file_is_named_after_a_picture(place: Path) -> None:
    """Ids are data: what a picture is called shows in no path of an artifact."""
    make_picture(place, "cat/; rm -rf $(HOME) `x` %s {0} \\", 1)
    home = Home(FOLDER, place)
    out = home.new_out()
    assert home.made(out)["counts"]["ok"] == 1
    assert not [name for name in files(out) if "rm" in name.split("/")[-1].split(".")[0] or "cat" in name]


def test_the_zoo_of_pictures(place: Path) -> None:
    """Row 28: `index` fails what a header shows, a stage that decodes fails the rest, and all others are fine."""
    zoo = picture_zoo.zoo()
    for name, picture in zoo.items():
        path = place / "pictures" / "zoo" / f"{name.replace('.', ' ')}{Path(name).suffix}"  # one id each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.data)
    toys = Home(Case(stage=CASES["toy"].stage, config=CASES["toy"].config, inputs={"images": "images"}), place)
    Home(FOLDER, place).made(place / "images", max_bad=1.0)
    out = toys.new_out()
    toys.made(out, max_bad=1.0)
    indexed, decoded = content(place / "images"), content(out)
    assert len(indexed) == len(zoo) >= 28
    for name, picture in zoo.items():
        identifier = unicodedata.normalize("NFC", f"zoo/{name.replace('.', ' ')}")
        seen, made = indexed[identifier], decoded[identifier]
        if picture.header:
            assert (seen["status"], seen["reason"]) == ("failed", picture.header), name
            assert (made["status"], made["reason"]) == ("upstream", picture.header), name
            continue
        assert (seen["status"], seen["reason"]) == ("ok", ""), name
        assert (seen["width"], seen["height"]) == picture.size, name
        assert (seen["mode"], seen["orientation"], seen["frames"]) == (
            picture.mode,
            picture.orientation,
            picture.frames,
        ), name
        wanted = ("failed", picture.reason) if picture.reason else ("ok", "")
        assert (made["status"], made["reason"]) == wanted, name


def test_a_bomb_of_a_picture(place: Path) -> None:
    """Row 33: 196 megapixels in a few kilobytes cost no memory, in `index` or in the decoder."""
    data = picture_zoo.zoo()["14000x14000.png"].data
    (place / "pictures/zoo").mkdir(parents=True)
    (place / "pictures/zoo/bomb.png").write_bytes(data)
    home = Home(FOLDER, place)
    out = home.new_out()

    def growth() -> int:
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        home.run(out, max_bad=1.0)
        with pytest.raises(RowFailed) as caught:
            decode_picture(data)
        assert caught.value.reason is Reason.TOO_LARGE
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began

    ended = in_child(growth)
    assert ended.code == 0, ended
    assert ended.answer < GROWTH_MB * 1024
    assert content(out)["zoo/bomb"]["reason"] == "too_large"


def test_pictures_that_nobody_may_open(place: Path) -> None:
    """A folder, a pipe and a link to nothing with a picture's name: rows of their own, and no wait for ever."""
    make_picture(place, "cat/fine", 1)
    os.mkfifo(place / "pictures/cat/pipe.png")
    (place / "pictures/cat/gone.png").symlink_to(place / "nothing.png")
    (place / "pictures/cat/loop.png").symlink_to(place / "pictures/cat/loop.png")
    home = Home(FOLDER, place)
    out = home.new_out()
    assert home.made(out, max_bad=1.0)["counts"]["ok"] == 1
    reasons = {name: row["reason"] for name, row in content(out).items()}
    assert reasons["cat/pipe"] == "unreadable"
    assert reasons["cat/gone"] in ("missing", "outside_root")
    assert reasons["cat/loop"] in ("unreadable", "missing", "outside_root")
    before = tree(out)
    assert home.made(out, max_bad=1.0)["run"] == 0
    assert tree(out) == before
