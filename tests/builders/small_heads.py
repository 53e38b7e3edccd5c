"""Maps with heads of a few small pictures with masks, in seconds: one head knows where the object is, and is noisy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import nn

from builders.configs import make_command, make_config
from maskmill.manifests.artifact import tables
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import SEEN, WEIGHTS, SeenByNetwork, networks_seen_json
from maskmill.manifests.artifact.fields import Field
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.enhance.applying import weights_bytes
from maskmill.stages.enhance.config import EnhanceConfig, EnhancerConfig
from maskmill.stages.enhance.enhancer import Enhancer
from maskmill.stages.enhance.enhancer_fit import FIT
from maskmill.stages.enhance.kinds import KIND, maps_kind
from maskmill.stages.enhance.stage import STAGE as ENHANCE
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.stage import Findings, Inputs, Known, RowList, RowResult, Stage, UnitResult, WholeStage, Work

GRID, PATCH, HEADS = (5, 6), 4, 3
CLASSES = ("cat", "dog", "owl")
OPTIONS = RunOptions(unit_rows=7, max_bad=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsConfig:
    method: str = "toy"
    supports: str = "8"
    by_class: bool = True
    signal: float = 0.4  # how much a head rises where the object is
    per_head: bool = True
    is_map_right: bool = False  # whatever the heads know


def plan(config: HeadsConfig, inputs: Inputs, known: Known) -> RowList:
    images = inputs["images"]
    facts = {
        "classes": images.plan.facts["classes"],
        "grid": list(GRID),
        "patch": [PATCH, PATCH],
        "score_kind": "cosine01",
        "align_corners": True,
        "weights": {"source": "toy", "sha256": "0" * 64, "licence": "none"},
        "backbone": "vit_toy",
    }
    rows = [
        {"id": row["id"], "class": index, "instance": 0}
        for row in images.rows(["id", "labels"]).to_pylist()
        for index in ((row["labels"] or [None]) if config.by_class else [None])
    ]
    kinds = {"id": "string", "class": "int64", "instance": "int64"}
    return RowList(kinds, iter([pa.RecordBatch.from_pylist(rows, tables.schema_of(kinds))]), facts, tuple(kinds))


def fields(config: HeadsConfig, inputs: Inputs) -> Sequence[Field]:
    cut = ("class", "instance", "threshold", "box", "height", "width", "note")
    heads = [Field(name="head_maps", kind="array", shape=(HEADS, *GRID))] if config.per_head else []
    return [Field(name="map", kind="array", shape=GRID), *heads, Field(name="cut", kind="columns", columns=cut)]


def columns(config: HeadsConfig) -> Mapping[str, str]:
    sizes = {"box": "ints", "height": "int64", "width": "int64"}
    return {"class": "int64", "instance": "int64", "threshold": "float64", **sizes}


def reads(config: HeadsConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture", "mask", "labels")}


def run_unit(work: Work, config: HeadsConfig, prepared: Any) -> UnitResult:
    """The picture lies in the view as it is, from its top left corner on."""
    heads = np.zeros((len(work.ids), HEADS, *GRID), np.float32)
    right = np.zeros((len(work.ids), *GRID), np.float32)
    results = []
    pairs = zip(work.listing.to_pylist(), work.upstream["images"].to_pylist(), strict=True)
    for place, (listed, image) in enumerate(pairs):
        nothing = config.by_class and listed["class"] is None
        size = (image["height"], image["width"])
        if not nothing and not work.blocked[place]:
            (png,) = work.inputs["images"].cells("mask", work.inputs["images"].positions([listed["id"]]))
            label_HW = decode_label_map(png) if png else np.zeros(size, np.uint8)
            right[place] = shares(label_HW, listed["class"])
            heads[place] = head_maps(listed["id"], listed["class"], config.signal * right[place])
        row = {"class": listed["class"], "instance": 0, "threshold": 0.5, "box": [0, 0, *size]}
        sizes = {"height": size[0], "width": size[1]}
        results.append(RowResult({**row, **sizes}, note="no_label" if nothing else ""))
    maps = right if config.is_map_right else heads.mean(axis=1)
    return UnitResult(results, {"map": maps, **({"head_maps": heads} if config.per_head else {})})


def shares(label_HW: np.ndarray, label: int | None) -> np.ndarray:
    """Of each patch, where it is of the class."""
    view = np.zeros((GRID[0] * PATCH, GRID[1] * PATCH), bool)
    view[: label_HW.shape[0], : label_HW.shape[1]] = label_HW == label if label else label_HW % 255 > 0
    found: np.ndarray = view.reshape(GRID[0], PATCH, GRID[1], PATCH).mean(axis=(1, 3))
    return found


def head_maps(identifier: str, label: int | None, signal_RC: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng([*identifier.encode(), label or 0])
    maps_HRC = (0.5 + 0.1 * generator.standard_normal((HEADS, *GRID))).astype(np.float32)
    maps_HRC[1] += signal_RC
    return maps_HRC.clip(0, 1)


TOY_HEADS = Stage(
    command=make_command("toyheads", "maps", HeadsConfig, {"images": "images"}, "builders.small_heads:TOY_HEADS"),
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
    reads=reads,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfittedConfig:
    seed: int = 0
    held_out: str = ""  # an id, of the first network


def unfitted(config: UnfittedConfig, inputs: Inputs, underway: Underway) -> Findings:
    """Two networks by a formula; no picture has a share in their bytes."""
    networks = nn.ModuleList(Enhancer(inputs["maps"].plan.fields["head_maps"].shape[0]) for _ in range(2))
    for number, weights in enumerate(networks.parameters()):
        chirp = torch.sin(0.37 * torch.arange(weights.numel()) ** 2 + number + config.seed)
        weights.data = chirp.view(weights.shape) * (2 / math.prod(weights.shape[1:])) ** 0.5
    seen = [SeenByNetwork([], [], [config.held_out] if config.held_out else []), SeenByNetwork([], [], [])]
    files = {WEIGHTS: weights_bytes(networks), SEEN: networks_seen_json(seen)}
    return Findings(files, {"kind": KIND, **maps_kind(inputs["maps"]), "networks": 2, "cells": 1})


UNFITTED = WholeStage(
    command=make_command("unfitted", "checkpoint", UnfittedConfig, {"maps": "maps"}),
    code_version=1,
    compute=unfitted,
    reads=lambda config, inputs: {"maps": ("head_maps",)},
)


def labels_of(number: int) -> tuple[str, ...]:
    """Two in seven show a second class, and every ninth says nothing."""
    if number % 9 == 8:
        return ()
    first = CLASSES[number % 3] if number < 24 else "cat"
    return (first, "owl") if number % 7 == 3 and first != "owl" else (first,)


def write_images(home: Path, count: int = 24, masked: int = 1000, out: str = "images", root: str = "pictures") -> Path:
    """An index of so many pictures, of which the first `masked` have a mask: a box of each class that they show."""
    lines = ["path,labels,mask"]
    for number in range(count):
        name, size = f"p{number:02d}", (13 + number % 8, 14 + (5 * number) % 11)
        path = home / root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        Image.fromarray(true_mask(number, size)).save(home / root / f"{name}-mask.png")
        lines.append(f"{name}.png,{'|'.join(labels_of(number))},{f'{name}-mask.png' if number < masked else ''}")
    table = home / root / f"{out}.csv"
    table.write_text("\n".join(lines) + "\n")
    config = IndexConfig(source=TableSource(file=str(table), classes=CLASSES))
    run(INDEX, config, {}, str(home / out), OPTIONS)
    return home / out


def true_mask(number: int, size: tuple[int, int]) -> np.ndarray:
    label_HW = np.zeros(size, np.uint8)
    generator = np.random.default_rng(1000 + number)
    for name in labels_of(number) or ("cat",):
        top, left = generator.integers(0, [size[0] - 7, size[1] - 8])
        label_HW[top : top + 7, left : left + 8] = CLASSES.index(name) + 1
    label_HW[:2, :3] = 255
    return label_HW


def make_maps(home: Path, out: str = "maps", images: str = "images", **asked: Any) -> Artifact:
    run(TOY_HEADS, HeadsConfig(**asked), {"images": str(home / images)}, str(home / out), OPTIONS)
    return open_artifact(str(home / out), "maps")


def fit(home: Path, out: str, maps: str = "maps", images: str = "images", **asked: Any) -> Outcome:
    config = asked.pop("config", None) or make_config(EnhancerConfig, **asked)
    assert isinstance(config, EnhancerConfig)
    return run_whole(FIT, config, {"maps": str(home / maps), "images": str(home / images)}, str(home / out))


def apply(home: Path, model: str, out: str, maps: str = "maps", threshold: str = "0.5", **options: Any) -> Artifact:
    inputs = {"maps": str(home / maps), "images": str(home / "images"), "model": str(home / model)}
    run(
        ENHANCE,
        make_config(EnhanceConfig, threshold=threshold),
        inputs,
        str(home / out),
        RunOptions(**{"max_bad": 0.5, **options}),
    )
    return open_artifact(str(home / out), "maps")
