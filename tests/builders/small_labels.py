"""Labels and datasets of a few pictures in a second: index and refine as they are, with soft maps from a toy stage.

Eight pictures p0 … p7, p2 of two classes, p3 without label, p4 turned by EXIF, p5 broken, with masks for p0, p1 and p4.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from builders.configs import make_command, make_config
from maskmill.manifests.artifact import tables
from maskmill.manifests.artifact.config import option
from maskmill.manifests.artifact.fields import Field
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.files.sealed import Json
from maskmill.manifests.pictures.palette import encode_label_map
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.stage import STAGE as MANIFEST
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work

OPTIONS = RunOptions(unit_rows=3, max_bad=0.5)
LABELS = {"p0": "cat", "p1": "dog", "p2": "cat|dog", "p3": "", "p4": "dog", "p5": "cat", "p6": "dog", "p7": "cat"}
MASKED, BROKEN, TURNED = ("p0", "p1", "p4"), "p5", "p4"
WEIGHTS = {"source": "random:0", "sha256": "0" * 64, "licence": "cc-by-nc-4.0"}
GRID, PATCH = (4, 5), (8, 8)
EXIF_ORIENTATION, SIX = 274, 6  # stored on its side, to be turned clockwise


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsConfig:
    by_class: bool = option(True, "One map per class; otherwise one per picture, without class.")
    threshold: float = option(0.5, "Threshold of each map.")


def maps_plan(config: MapsConfig, inputs: Inputs, known: Known) -> RowList:
    images = inputs["images"]
    facts: dict[str, Json] = {
        "classes": images.plan.facts["classes"],
        "patch": list(PATCH),
        "align_corners": False,
        "weights": WEIGHTS,
        "backbone": "vit_toy",
    }
    rows = [
        {"id": row["id"], "class": index, "instance": 0}
        for row in images.rows(["id", "labels"]).to_pylist()
        for index in ((row["labels"] or [None]) if config.by_class else [None])
    ]
    kinds = {"id": "string", "class": "int64", "instance": "int64"}
    batch = pa.RecordBatch.from_pylist(rows, tables.schema_of(kinds))
    return RowList(kinds, iter([batch]), facts, ("id", "class", "instance"))


def maps_fields(config: MapsConfig, inputs: Inputs) -> Sequence[Field]:
    cut = ("class", "instance", "threshold", "box", "height", "width", "note")
    return [Field(name="map", kind="array", shape=GRID), Field(name="cut", kind="columns", columns=cut)]


def maps_columns(config: MapsConfig) -> Mapping[str, str]:
    sizes = {"box": "ints", "height": "int64", "width": "int64"}
    return {"class": "int64", "instance": "int64", "threshold": "float64", **sizes}


def maps_reads(config: MapsConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture", "labels")}


def maps_unit(work: Work, config: MapsConfig, prepared: Any) -> UnitResult:
    maps, results = np.zeros((len(work.ids), *GRID), np.float32), []
    for place, (listed, image) in enumerate(
        zip(work.listing.to_pylist(), work.upstream["images"].to_pylist(), strict=True)
    ):
        nothing = config.by_class and listed["class"] is None
        if not nothing:
            maps[place] = soft_map(listed["id"], listed["class"])
        row = {"class": listed["class"], "instance": 0, "threshold": config.threshold, "box": [0, 0, 32, 40]}
        sizes = {name: image[name] for name in ("height", "width")}
        results.append(RowResult({**row, **sizes}, note="no_label" if nothing else ""))
    return UnitResult(results, {"map": maps})


def soft_map(identifier: str, label: int | None) -> np.ndarray:
    """A blob whose place depends on the picture and the class."""
    generator = np.random.default_rng(zlib.crc32(f"{identifier} {label}".encode()))
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    middle_row, middle_column = generator.uniform(0.5, 2.5), generator.uniform(0.5, 3.5)
    distance = (rows - middle_row) ** 2 + (columns - middle_column) ** 2
    return np.exp(-distance / 4).astype(np.float32)


MAPS = Stage(
    command=make_command("toymaps", "maps", MapsConfig, {"images": "images"}, "builders.small_labels:MAPS"),
    code_version=1,
    plan=maps_plan,
    fields=maps_fields,
    columns=maps_columns,
    run_unit=maps_unit,
    reads=maps_reads,
)


def write_pictures(root: Path, labels: Mapping[str, str] = LABELS) -> Path:
    """The pictures with a table of them; its path."""
    root.mkdir(parents=True)
    lines = ["path,labels,split,mask"]
    for number, (identifier, classes) in enumerate(labels.items()):
        pixels_HW3 = np.random.default_rng(number).integers(0, 256, (24 + number, 40, 3), dtype=np.uint8)
        exif = Image.Exif()
        if identifier == TURNED:
            exif[EXIF_ORIENTATION] = SIX
        Image.fromarray(pixels_HW3).save(root / f"{identifier}.jpg", quality=95, exif=exif)
        mask = ""
        if identifier in MASKED:
            mask = f"{identifier}.png"
            (root / mask).write_bytes(encode_label_map(true_mask(identifier, pixels_HW3.shape[:2])))
        lines.append(f"{identifier}.jpg,{classes},{'val' if number > 5 else 'train'},{mask}")
    if BROKEN in labels:
        (root / f"{BROKEN}.jpg").write_bytes(b"no picture")
    table = root / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def true_mask(identifier: str, size: tuple[int, int]) -> np.ndarray:
    """As stored; of the turned picture, upright."""
    height, width = size if identifier != TURNED else size[::-1]
    label_HW = np.zeros((height, width), np.uint8)
    label_HW[4:15, 6:20] = 1 if LABELS[identifier] == "cat" else 2
    label_HW[4:15, 20:22] = 255
    return label_HW


def make_images(home: Path, out: str = "images", masks: bool = True) -> Path:
    table = home / "pictures" / "table.csv"
    if not table.exists():
        write_pictures(home / "pictures")
    if not masks:
        lines = [",".join([*line.split(",")[:3], ""]) for line in table.read_text().splitlines()]
        table = home / "pictures" / "without.csv"
        table.write_text("\n".join(["path,labels,split,mask", *lines[1:]]) + "\n")
    config = IndexConfig(source=TableSource(file=str(table), classes=("cat", "dog")))
    run(INDEX, config, {}, str(home / out), replace(OPTIONS, update=True))
    return home / out


def make_labels(home: Path, maps: MapsConfig | None = None, **refined: Any) -> Path:
    """home/images, home/maps and home/labels."""
    make_images(home)
    where = {"images": str(home / "images")}
    run(MAPS, maps or MapsConfig(), where, str(home / "maps"), OPTIONS)
    run(
        REFINE,
        make_config(RefineConfig, **refined),
        {"maps": str(home / "maps"), **where},
        str(home / "labels"),
        OPTIONS,
    )
    return home / "labels"


def publish(home: Path, out: str = "dataset", options: RunOptions = OPTIONS, **config: Any) -> Outcome:
    """home/dataset, from what `make_labels` has made; inputs by their role, where they are others."""
    inputs = {role: str(home / config.pop(role, role)) for role in ("labels", "maps", "images")}
    inputs |= {role: str(home / config.pop(role)) for role in ("seen", "compared") if role in config}
    return run(MANIFEST, make_config(ManifestConfig, **config), inputs, str(home / out), options)
