"""Decodes pictures to one size; pretraining and pixel students read them instead of decoding at every epoch."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...manifests.artifact.fields import Field
from ...manifests.artifact.pixels import FIELD
from ..stage import Inputs, Known, Probe, RowList, RowResult, Stage, UnitResult, Work, rows_of_input
from ..vision.pictures import ViewSpec, load_ahead, load_first, stack_pictures
from .config import PIXELS, PixelsConfig

MID_GREY = (0.5, 0.5, 0.5)  # padding, 128 in bytes: close to 0 after any mean is subtracted
BATCH = 16  # pictures decoded ahead; no bytes depend on it
PROBE_ROWS = 64  # measured for `plan`


def plan(config: PixelsConfig, inputs: Inputs, known: Known) -> RowList:
    return rows_of_input(inputs, "images", facts={})


def fields(config: PixelsConfig, inputs: Inputs) -> Sequence[Field]:
    return [Field(name=FIELD, kind="array", shape=(*config.image_size, 3), dtype="uint8")]


def columns(config: PixelsConfig) -> Mapping[str, str]:
    return {
        "box": "ints",  # top, left, bottom, right of the whole picture, in pixels of the row; a crop's is larger
        "height": "int64",  # of the picture upright
        "width": "int64",
    }


def reads(config: PixelsConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture",)}


def run_unit(work: Work, config: PixelsConfig, prepared: Any) -> UnitResult:
    view, rows = _view_spec(config), list[RowResult]()
    pixels_R = np.zeros((len(work.ids), *config.image_size, 3), np.uint8)
    for start, loaded in load_ahead(work, view, BATCH):
        rows += [picture.result for picture in loaded]
        pixels_R[start : start + len(loaded)] = stack_pictures(loaded, view)
    return UnitResult(rows, {FIELD: pixels_R})


def probe(config: PixelsConfig, inputs: Inputs) -> Probe:
    """Measures one thread; a unit has several, so the estimate is too long rather than too short."""
    view = _view_spec(config)
    load_first(inputs["images"], view, 1)  # opens files, and imports what decodes
    began = time.perf_counter()
    measured = load_first(inputs["images"], view, PROBE_ROWS)
    return Probe(len(measured), time.perf_counter() - began)


def _view_spec(config: PixelsConfig) -> ViewSpec:
    rows_px, columns_px = config.image_size
    return ViewSpec(rows_px=rows_px, columns_px=columns_px, fit=config.fit, flip=False, mean=MID_GREY)


STAGE = Stage(
    command=PIXELS,
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    run_unit=run_unit,
    probe=probe,
    libraries=("Pillow",),
)
