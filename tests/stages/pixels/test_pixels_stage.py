"""The stage as a run drives it: the right pixels, in their places, whatever becomes of other pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.small_dataset import write_picture
from builders.small_pixels import COLUMNS_PX, ROWS_PX, Bench, everything
from maskmill.manifests.artifact.pixels import Pixels, open_pixels
from maskmill.manifests.errors import ConfigError, InputError, Reason, RowFailed
from maskmill.manifests.pictures import indexed
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE
from maskmill.stages.stage import UnitResult, Work

BILINEAR = Image.Resampling.BILINEAR


def expected(picture: Image.Image, fit: str) -> tuple[np.ndarray, list[int]]:
    """By Pillow alone: what a row holds, and where the whole picture lies in it."""
    width, height = picture.size
    if fit == "squash":
        return np.asarray(picture.resize((COLUMNS_PX, ROWS_PX), BILINEAR)), [0, 0, ROWS_PX, COLUMNS_PX]
    scales = (COLUMNS_PX / width, ROWS_PX / height)
    if fit == "pad":
        wide, high = round(width * min(scales)), round(height * min(scales))
        canvas = Image.new("RGB", (COLUMNS_PX, ROWS_PX), (128, 128, 128))
        canvas.paste(picture.resize((wide, high), BILINEAR), (0, 0))
        return np.asarray(canvas), [0, 0, high, wide]
    wide, high = (int(side * max(scales) + 1e-9) for side in (width, height))
    left, top = round((wide - COLUMNS_PX) / 2), round((high - ROWS_PX) / 2)
    whole = picture.resize((wide, high), BILINEAR)
    return np.asarray(whole.crop((left, top, left + COLUMNS_PX, top + ROWS_PX))), [-top, -left, high - top, wide - left]


def reasons(pixels: Pixels) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in pixels.rows.to_pylist() if row["status"] != "ok"}


# ---- what is stored


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_what_is_stored_is_what_pillow_gives(bench: Bench, fit: Any) -> None:
    pixels = bench.make(fit=fit)
    assert pixels.rows.column("id").to_pylist() == bench.ids()
    assert (len(pixels), pixels.size, pixels.fit) == (12, (ROWS_PX, COLUMNS_PX), fit)
    for row in pixels.rows.to_pylist():
        picture = bench.picture(row["id"])
        held, box = expected(picture, fit)
        assert np.array_equal(pixels.read(row["id"]), held), row["id"]
        assert (row["status"], row["box"], row["width"], row["height"]) == ("ok", box, *picture.size)


def test_a_crop_is_what_is_made_where_nothing_is_said(bench: Bench) -> None:
    assert PixelsConfig(image_size=(8, 8)).fit == "crop"
    assert np.array_equal(everything(bench.make()), everything(bench.make(fit="crop")))


@pytest.mark.parametrize("unit_rows", [1, 3, 12, 0])
def test_units_of_another_size_hold_the_same(bench: Bench, unit_rows: int) -> None:
    pixels, other = bench.make(), bench.make(RunOptions(unit_rows=unit_rows))
    assert np.array_equal(everything(other), everything(pixels))
    assert other.rows.column("box").to_pylist() == pixels.rows.column("box").to_pylist()


def test_files_and_bytes_are_those_of_the_arrays(bench: Bench) -> None:
    out = bench.new_out()
    bench.run(out, RunOptions(unit_rows=6), image_size=(160, 160))
    files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "log"]
    assert len(files) <= (1 + 1) * 2 + 10
    assert sum(path.stat().st_size for path in files) <= 1.03 * 12 * 160 * 160 * 3


# ---- pictures that change


def test_added_pictures_are_a_unit_of_their_own(own_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    out = own_bench.new_out()
    own_bench.run(out)
    before, ids = everything(open_pixels(out)), own_bench.ids()
    write_picture(own_bench.pictures / "ant/0.png", 50)  # sorts before all others, and goes to the end
    own_bench.grow()
    opened: list[str] = []

    def read_source(root: str, uri: str) -> bytes:
        opened.append(uri)
        return Path(root, uri).read_bytes()

    monkeypatch.setattr(indexed, "read_source", read_source)
    outcome = own_bench.run(out)
    assert (outcome.units_run, outcome.units_skipped) == (1, 3)
    assert opened == ["ant/0.png"]
    pixels = open_pixels(out)
    assert pixels.rows.column("id").to_pylist() == [*ids, "ant/0"]
    assert np.array_equal(everything(pixels)[:12], before)
    assert np.array_equal(pixels.read("ant/0"), expected(own_bench.picture("ant/0"), "crop")[0])


def test_a_bad_picture_is_its_own_row_alone(bench: Bench, own_bench: Bench) -> None:
    ids = own_bench.ids()
    bad = own_bench.spoil()
    pixels = own_bench.make()
    assert reasons(pixels) == bad
    assert {row["id"] for row in pixels.rows.to_pylist() if row["status"] == "upstream"} == {"cat/0"}
    is_bad = np.array([identifier in bad for identifier in ids])
    assert not everything(pixels)[is_bad].any()
    assert np.array_equal(everything(pixels)[~is_bad], everything(bench.make())[~is_bad])
    assert [ids[position] for position in pixels.ok_positions()] == [each for each in ids if each not in bad]
    assert verify(pixels.artifact.place.uri).exit_code == 0
    for identifier, reason in bad.items():
        with pytest.raises(InputError, match=rf"'{identifier}'.*{reason}"):
            pixels.read(identifier)


def test_on_the_last_try_a_picture_is_decoded_in_a_child(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes its child down is its own row, and no other row is decoded in this process either."""
    crashing = bench.picture("cat/10").size  # cat/4 has it too

    def in_a_child(data: bytes, limits: Any) -> np.ndarray:
        picture_HW3, facts = decode_picture(data, limits)
        if (facts.width, facts.height) == crashing:
            raise RowFailed(Reason.CRASHED)
        return picture_HW3

    def on_the_last_try(work: Work, config: Any, prepared: Any) -> UnitResult:
        return STAGE.run_unit(replace(work, careful=True), config, prepared)

    wanted = everything(bench.make())
    monkeypatch.setattr(indexed, "decode_carefully", in_a_child)
    monkeypatch.setattr(indexed, "decode_picture", None)
    pixels = bench.make(stage=replace(STAGE, run_unit=on_the_last_try))
    assert reasons(pixels) == {"cat/10": "crashed", "cat/4": "crashed"}
    ok = pixels.ok_positions()
    assert np.array_equal(pixels.at(ok), wanted[ok])


# ---- what is asked for


@pytest.mark.parametrize("size", [(0, 32), (32, 0), (-1, 5), (4097, 32)])
def test_a_size_that_cannot_be(size: tuple[int, int]) -> None:
    told = rf"image.size.*{size[0]}x{size[1]}.*1.*4096"
    with pytest.raises(ConfigError, match=told):
        PixelsConfig(image_size=size)


def test_a_picture_of_one_pixel_is_one(bench: Bench) -> None:
    assert everything(bench.make(image_size=(1, 1))).shape == (12, 1, 1, 3)
