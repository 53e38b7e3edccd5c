"""Pictures on their way to one size: their row's reasons, and how many are decoded ahead of what is computed."""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.small_dataset import write_picture
from maskmill.manifests.errors import EnvironmentFault, Reason, RowFailed
from maskmill.manifests.pictures import indexed
from maskmill.manifests.pictures.indexed import IndexedPictures
from maskmill.manifests.pictures.limits import DEFAULT_LIMITS, Limits
from maskmill.stages.stage import RowResult
from maskmill.stages.vision.pictures import BATCHES_AHEAD, Loaded, ViewSpec, batches_ahead, load_picture, stack_pictures

VIEW = ViewSpec(rows_px=32, columns_px=48, fit="pad", flip=False, mean=(0.5, 0.5, 0.5))


def row_of(root: Path, uri: str = "a.png") -> dict[str, Any]:
    return {"uri": uri, "sha256": hashlib.sha256((root / uri).read_bytes()).hexdigest()}


@pytest.mark.parametrize("careful", [False, True])
def test_a_picture_is_fitted_and_says_where_it_lies(tmp_path: Path, careful: bool) -> None:
    write_picture(tmp_path / "a.png", 1, (20, 16))
    loaded = load_picture(IndexedPictures(str(tmp_path), DEFAULT_LIMITS), row_of(tmp_path), VIEW, careful)
    assert loaded.result == RowResult({"box": [0, 0, 32, 40], "height": 16, "width": 20})
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (32, 48, 3)
    assert (loaded.pixels[:, 40:] == 128).all()  # the mean


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(
    ("spoil", "limits", "reason"),
    [
        (lambda path: path.unlink(), DEFAULT_LIMITS, Reason.MISSING),
        (lambda path: write_picture(path, 2), DEFAULT_LIMITS, Reason.CHANGED),
        (lambda path: None, Limits(min_side=17), Reason.TOO_SMALL),
    ],
)
def test_what_is_wrong_with_a_picture_is_its_rows(
    tmp_path: Path, spoil: Callable[[Path], Any], limits: Limits, reason: Reason, careful: bool
) -> None:
    write_picture(tmp_path / "a.png", 1)
    row = row_of(tmp_path)
    spoil(tmp_path / "a.png")
    assert load_picture(IndexedPictures(str(tmp_path), limits), row, VIEW, careful) == Loaded(
        None, RowResult(reason=reason)
    )


def test_a_picture_is_decoded_in_a_child_only_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "a.png", 1)

    def crash(*given: Any) -> Any:
        raise RowFailed(Reason.CRASHED)

    monkeypatch.setattr(indexed, "decode_carefully", crash)
    own = IndexedPictures(str(tmp_path), DEFAULT_LIMITS)
    assert load_picture(own, row_of(tmp_path), VIEW).result.reason is None
    assert load_picture(own, row_of(tmp_path), VIEW, careful=True).result.reason is Reason.CRASHED


def numbered(index: int) -> Loaded:
    return Loaded(np.full((1, 1, 3), index, np.uint8), RowResult({"number": index}))


@pytest.mark.parametrize(("rows", "batch"), [(0, 4), (1, 4), (4, 4), (5, 4), (23, 4), (23, 1), (3, 100)])
def test_batches_come_in_order_and_whole(rows: int, batch: int) -> None:
    found = list(batches_ahead(numbered, rows, batch, threads=3))
    assert [start for start, _ in found] == list(range(0, rows, batch))
    assert [each.result.scalars["number"] for _, loaded in found for each in loaded] == list(range(rows))
    assert all(len(loaded) == batch for _, loaded in found[:-1])


def test_no_more_than_two_batches_wait_beside_the_one_that_is_computed() -> None:
    begun: list[int] = []

    def note(index: int) -> Loaded:
        begun.append(index)
        return numbered(index)

    batches = batches_ahead(note, 100, 4, threads=8)
    for number in range(3):
        next(batches)
        deadline = time.monotonic() + 5
        while len(begun) < 4 * (number + 1 + BATCHES_AHEAD):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(begun) == 4 * (number + 1 + BATCHES_AHEAD)
    batches.close()  # type: ignore[attr-defined]
    assert len(begun) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("maskmill-read")]


def test_what_is_wrong_with_the_machine_ends_it_all() -> None:
    def fail(index: int) -> Loaded:
        if index == 9:
            raise EnvironmentFault("cannot read the disk; check it")
        return numbered(index)

    batches = batches_ahead(fail, 100, 4, threads=2)
    assert [next(batches)[0], next(batches)[0]] == [0, 4]
    with pytest.raises(EnvironmentFault, match="cannot read the disk"):
        next(batches)


def test_a_failed_picture_keeps_its_place_in_the_batch() -> None:
    view = ViewSpec(rows_px=1, columns_px=1, fit="pad", flip=False, mean=(0.5, 0.5, 0.5))
    loaded = [numbered(7), Loaded(None, RowResult(reason=Reason.CHANGED)), numbered(9)]
    assert stack_pictures(loaded, view)[:, 0, 0, 0].tolist() == [7, 0, 9]
