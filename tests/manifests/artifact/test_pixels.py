"""Stored pictures as anybody reads them: by id or position, checked, lazily, and refused in one sentence."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskmill
from builders.small_dataset import write_picture
from builders.small_pixels import Bench, bench_of, everything
from maskmill.manifests.artifact.pixels import Pixels, open_pixels
from maskmill.manifests.errors import ConfigError, CorruptArtifact, InputError, MissingArtifact, UnfinishedArtifact

FAILED = "dog/3"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = bench_of(tmp_path_factory.mktemp("pixels"))
    write_picture(bench.pictures / f"{FAILED}.png", 99)
    return bench


@pytest.fixture(scope="module")
def made(bench: Bench) -> Pixels:
    return bench.make()


def test_it_is_what_the_package_offers() -> None:
    assert maskmill.open_pixels is open_pixels
    assert maskmill.Pixels is Pixels
    assert {"open_pixels", "Pixels"} <= set(dir(maskmill))


def test_reading_needs_no_torch(made: Pixels) -> None:
    script = (
        "import sys, maskmill\n"
        "before = set(sys.modules)\n"
        f"pixels = maskmill.open_pixels({made.artifact.place.uri!r}).read('cat/0')\n"
        "print(pixels.shape, {'torch', 'timm', 'dask', 'click'} & set(sys.modules), 'numpy' in before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "(24, 32, 3) set() False\n"


def test_one_picture_or_several_in_any_order(made: Pixels) -> None:
    by_id = dict(zip(made.rows.column("id").to_pylist(), everything(made), strict=True))
    assert len({values.tobytes() for values in by_id.values()}) == 12
    assert np.array_equal(made.read("dog/7"), by_id["dog/7"])
    for ids in (["dog/9", "cat/0", "cat/2", "dog/9", "cat/8"], ["cat/0"], ["cat/0", "cat/10", "cat/2"]):
        assert np.array_equal(made.read(ids), np.stack([by_id[each] for each in ids]))
    assert made.read([]).shape == (0, 24, 32, 3)
    assert made.at([]).shape == (0, 24, 32, 3)


def test_a_row_that_failed_is_refused_by_id_and_black_by_position(made: Pixels) -> None:
    told = r"'dog/3'.*changed"
    for ids in (FAILED, ["cat/0", FAILED]):
        with pytest.raises(InputError, match=told):
            made.read(ids)
    position = made.rows.column("id").to_pylist().index(FAILED)
    assert not made.at([position]).any()
    assert made.ok_positions().tolist() == [each for each in range(12) if each != position]
    assert all(values.any() for values in made.at(made.ok_positions()))


def test_what_is_not_there_is_told(made: Pixels, bench: Bench) -> None:
    with pytest.raises(InputError, match="'cat/77'"):
        made.read(["cat/0", "cat/77"])
    with pytest.raises(ConfigError, match=r"images\b.*pixels"):
        open_pixels(bench.images)
    with pytest.raises(MissingArtifact, match="nowhere"):
        open_pixels(bench.home / "nowhere")


def test_an_unfinished_artifact_is_refused(bench: Bench) -> None:
    out = bench.new_out()
    bench.run(out)
    (out / "artifact.json").unlink()
    with pytest.raises(UnfinishedArtifact, match="unfinished"):
        open_pixels(str(out))


def test_a_damaged_shard_is_refused_when_it_is_read(bench: Bench, made: Pixels) -> None:
    out = bench.new_out()
    bench.run(out)
    shard = out / "pixels.zarr/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    again = open_pixels(out)
    assert np.array_equal(again.at(range(5)), made.at(range(5)))
    with pytest.raises(CorruptArtifact, match=rf"{shard} "):
        again.at([0, 5])


def test_they_can_be_sent_to_another_process(made: Pixels) -> None:
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert np.array_equal(again.read("cat/2"), made.read("cat/2"))


def test_a_point_of_the_picture_is_found_by_its_box(tmp_path: Path) -> None:
    """A white square in a black picture lies, in every fit, where the box says."""
    bench = Bench(tmp_path)
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[20:40, 50:70] = 255
    (bench.pictures / "cat").mkdir(parents=True)
    Image.fromarray(picture).save(bench.pictures / "cat/0.png")
    bench.index()
    for fit in ("crop", "pad", "squash"):
        pixels = bench.make(fit=fit)
        row = pixels.rows.to_pylist()[0]
        top, left, bottom, right = row["box"]
        rows = top + np.array([20, 40]) * (bottom - top) / row["height"]
        columns = left + np.array([50, 70]) * (right - left) / row["width"]
        is_white = (pixels.read("cat/0") > 191).all(axis=2)
        found_rows, found_columns = np.nonzero(is_white)
        assert np.allclose([found_rows.min(), found_rows.max() + 1], rows, atol=1)
        assert np.allclose([found_columns.min(), found_columns.max() + 1], columns, atol=1)
