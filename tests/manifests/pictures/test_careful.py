"""Decoding in a child: the same pixels and reasons, and whatever ends the child is the picture's own failure."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import picture_zoo
from maskmill.manifests.errors import Reason, RowFailed
from maskmill.manifests.pictures import careful
from maskmill.manifests.pictures.careful import decode_carefully
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.manifests.pictures.limits import DEFAULT_LIMITS, Limits

CRASHING = """
import os, time
from PIL import ImageFile

load = ImageFile.ImageFile.load

def crashing(self):
    if b"abort" in self.info.get("comment", b""):
        os.abort()
    if b"leave" in self.info.get("comment", b""):
        os._exit(0)
    if b"hang" in self.info.get("comment", b""):
        time.sleep(60)
    return load(self)

ImageFile.ImageFile.load = crashing
"""


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every Python that is started from here, pictures with a word in their comment end the process or hang."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def picture(comment: bytes = b"") -> bytes:
    return picture_zoo.encoded(picture_zoo.scene(), "JPEG", comment=comment)


def test_every_picture_of_the_zoo_ends_as_it_does_here() -> None:
    """One of each kind of end: all of them would take a quarter of a minute."""
    seen: set[object] = set()
    for name, each in picture_zoo.zoo().items():
        kind = each.reason or each.header or each.mode
        if kind not in seen:
            seen.add(kind)
            assert outcome(decode_carefully, each.data) == outcome(lambda data: decode_picture(data)[0], each.data), (
                name
            )
    assert len(seen) > 8


def outcome(decode: Callable[[bytes], np.ndarray], data: bytes) -> tuple[object, ...]:
    try:
        found = decode(data)
    except RowFailed as failed:
        return failed.reason, failed.detail
    return found.shape, found.dtype, found.tobytes()


def test_the_limits_are_those_that_are_given() -> None:
    with pytest.raises(RowFailed) as caught:
        decode_carefully(picture(), Limits(max_pixels=100, min_side=1))
    assert caught.value.reason is Reason.TOO_LARGE
    assert np.array_equal(decode_carefully(picture(), DEFAULT_LIMITS), decode_picture(picture())[0])


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("word", [b"abort", b"leave"])
def test_a_picture_that_ends_its_process_has_crashed(word: bytes) -> None:
    """With a signal, or as if all were well and without an answer."""
    with pytest.raises(RowFailed) as caught:
        decode_carefully(picture(word))
    assert caught.value.reason is Reason.CRASHED
    assert np.array_equal(decode_carefully(picture(b"nothing")), decode_picture(picture(b"nothing"))[0])


@pytest.mark.usefixtures("crashing")
def test_a_picture_that_hangs_has_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(careful, "PATIENCE_S", 1.0)
    began = time.monotonic()
    with pytest.raises(RowFailed, match="1 s") as caught:
        decode_carefully(picture(b"hang"))
    assert caught.value.reason is Reason.CRASHED
    assert time.monotonic() - began < 20


def test_a_child_that_cannot_start_is_no_fault_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('told to fail')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)told to fail"):
        decode_carefully(picture())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="/nowhere/python"):
        decode_carefully(picture())
