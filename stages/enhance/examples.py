"""The examples that an enhancer learns from: the maps of heads of a row, and the share of its class in each cell.

Letters: N rows, H heads, R C rows and columns of cells, I J pixels of a picture, K masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.files.sealed import Json
from ..maps.object_classes import NO_LABEL
from ..scores.truth import GroundTruth
from ..vision.cell_shares import cell_shares
from ..vision.fitting import Box
from .cells import Cells
from .kinds import HEAD_MAPS


@dataclass(frozen=True, slots=True)
class MapExample:
    """A row of a picture with a mask."""

    position: int  # in the maps' row list
    id: str
    label: int | None  # None: whatever stands out
    threshold: float  # of the map before enhancing
    box: Box
    size: tuple[int, int]  # of the picture

    def map_columns(self, threshold: float) -> dict[str, Json]:
        """The row's columns in a maps artifact."""
        height, width = self.size
        return {"class": self.label, "threshold": threshold, "box": self.box, "height": height, "width": width}


@dataclass(frozen=True, slots=True)
class Examples:
    """A batch of rows; about twenty kilobytes each."""

    ids: Sequence[str]
    maps: Float32[Tensor, "N H R C"]
    valid: Bool[Tensor, "N R C"]
    truth: Float32[Tensor, "N R C"]  # share of the class in the known pixels of a cell
    weight: Float32[Tensor, "N R C"]  # share of a cell that is picture and known

    def at(self, places: Tensor) -> "Examples":
        ids = [self.ids[int(place)] for place in places]
        return Examples(ids, self.maps[places], self.valid[places], self.truth[places], self.weight[places])


def examples_by_id(maps: Artifact, truth: GroundTruth, classes: Sequence[int]) -> dict[str, list[MapExample]]:
    """The labelled rows of every picture with ground truth; only of `classes` if any are given."""
    examples: dict[str, list[MapExample]] = {}
    columns = ["id", "status", "note", "class", "threshold", "box", "height", "width"]
    rows = chain.from_iterable(batch.to_pylist() for batch in maps.row_batches(columns))
    for position, row in enumerate(rows):
        is_ok = row["status"] == "ok" and row["note"] != NO_LABEL
        if is_ok and row["id"] in truth.ids and _is_wanted(row["class"], truth.labels[row["id"]], classes):
            box, size = tuple(row["box"]), (row["height"], row["width"])
            example = MapExample(position, row["id"], row["class"], row["threshold"], box, size)
            examples.setdefault(row["id"], []).append(example)
    return examples


def read_examples(maps: Artifact, truth: GroundTruth, rows: Sequence[MapExample], cells: Cells) -> Examples:
    valid_NRC = np.zeros((len(rows), *cells.grid), bool)
    truth_NRC, weight_NRC = np.zeros((2, len(rows), *cells.grid), np.float32)
    for index, row in enumerate(rows):
        label_IJ = truth.mask_of_size(row.id, row.size, "maps")
        is_known_IJ = label_IJ != IGNORE
        is_wanted_IJ = is_known_IJ & (label_IJ != BACKGROUND if row.label is None else label_IJ == row.label)
        wanted_RC, known_RC = cell_shares(np.stack([is_wanted_IJ, is_known_IJ]), row.box, cells.size, cells.grid)
        valid_NRC[index] = cells.valid(row.box)
        weight_NRC[index] = known_RC * valid_NRC[index]
        truth_NRC[index] = np.divide(wanted_RC, known_RC, out=np.zeros_like(known_RC), where=known_RC > 0)
    return Examples(
        [row.id for row in rows],
        torch.from_numpy(cells.upsample(maps.read(HEAD_MAPS, [row.position for row in rows]))),
        torch.from_numpy(valid_NRC),
        torch.from_numpy(truth_NRC),
        torch.from_numpy(weight_NRC),
    )


def _is_wanted(label: int | None, image_labels: Sequence[int], classes: Sequence[int]) -> bool:
    """An object without class counts as all classes of its picture."""
    if not classes:
        return True
    return label in classes if label is not None else bool(image_labels) and set(image_labels) <= set(classes)
