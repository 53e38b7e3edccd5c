"""Reads, checks, decodes and fits pictures in threads while others are computed.

Letters: B pictures of a batch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import ConfigError, RowFailed
from ...manifests.files.sealed import Json
from ...manifests.pictures.indexed import IndexedPictures
from ..choices import FitOrCrop
from ..read_ahead import read_ahead
from ..stage import RowResult, Work
from .fitting import Colour, fit_picture

BATCHES_AHEAD = 2  # decoded in advance of the one being computed
MAX_DECODERS = 8  # threads; more would wait for the interpreter lock


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """How a picture is fitted to the view."""

    rows_px: int
    columns_px: int
    fit: FitOrCrop
    flip: bool
    mean: Colour


@dataclass(frozen=True, slots=True)
class Loaded:
    """The view of a picture, and the result of its row."""

    pixels: UInt8[np.ndarray, "rows columns 3"] | None  # None if the row failed
    result: RowResult


def load_picture(indexed: IndexedPictures, row: Mapping[str, Json], view: ViewSpec, careful: bool = False) -> Loaded:
    """Loads one picture; errors become the row's failure reason."""
    try:
        picture_HW3 = indexed.load(row, careful)
    except RowFailed as failed:
        return Loaded(None, RowResult(reason=failed.reason))
    pixels, box = fit_picture(picture_HW3, view.rows_px, view.columns_px, view.fit, view.mean)
    if view.flip:
        top, left, bottom, right = box
        pixels, box = pixels[:, ::-1], (top, view.columns_px - right, bottom, view.columns_px - left)
    height, width = picture_HW3.shape[:2]
    return Loaded(pixels, RowResult({"box": list(box), "height": height, "width": width}))


def load_ahead(work: Work, view: ViewSpec, batch: int) -> Iterator[tuple[int, list[Loaded]]]:
    """The pictures of a unit in batches, each with its first row. Rows that failed upstream are not opened."""
    indexed, rows = IndexedPictures.of(work.inputs["images"]), work.upstream["images"].to_pylist()

    def load_one(index: int) -> Loaded:
        if work.blocked[index]:
            return Loaded(None, RowResult())
        return load_picture(indexed, rows[index], view, work.careful)

    threads = max(1, min(MAX_DECODERS, torch.get_num_threads()))
    return batches_ahead(load_one, len(rows), batch, threads)


def batches_ahead(
    load_one: Callable[[int], Loaded], num_rows: int, batch: int, threads: int
) -> Iterator[tuple[int, list[Loaded]]]:
    """Every batch with its first row, in order, with at most BATCHES_AHEAD batches decoded in advance."""
    with closing(read_ahead(load_one, range(num_rows), BATCHES_AHEAD * batch, threads)) as loaded:
        for start in range(0, num_rows, batch):
            yield start, list(islice(loaded, batch))


def load_first(images: Artifact, view: ViewSpec, count: int) -> list[Loaded]:
    """The first `count` loadable pictures, for measuring; raises ConfigError if there is none."""
    indexed = IndexedPictures.of(images)
    rows = (row for batch in images.row_batches(["uri", "sha256", "status"]) for row in batch.to_pylist())
    loaded = (load_picture(indexed, row, view) for row in rows if row["status"] == "ok")
    first = list(islice((picture for picture in loaded if picture.pixels is not None), count))
    if not first:
        raise ConfigError(f"{images.place} has no picture that could be measured; see `maskmill status {images.place}`")
    return first


def stack_pictures(loaded: list[Loaded], view: ViewSpec) -> UInt8[np.ndarray, "B rows columns 3"]:
    """A failed picture keeps its place in the batch, black, so that its neighbours are computed as without it."""
    pixels = np.zeros((len(loaded), view.rows_px, view.columns_px, 3), np.uint8)
    for index, each in enumerate(loaded):
        if each.pixels is not None:
            pixels[index] = each.pixels
    return pixels
