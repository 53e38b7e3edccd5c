"""How far the scores inside the cut of a map are above those outside.

Letters: R maps, T patches.

Measured on 72 pictures of VOC, as medians over maps of the median score inside and outside:

| maps | inside | outside | apart, one map in ten is below |
|---|---|---|---|
| cst, keys of a ViT-S/14 trained for saliency | 0.469 | 0.370 | 0.091, 0.065 |
| cst, keys of the built-in backbone | 0.452 | 0.364 | 0.081, 0.059 |
| cst, raw keys of that ViT-S/14, which crowd together | 0.694 | 0.660 | 0.033, 0.022 |
| cst, its tokens of block 10 (those of block 11 pass) | 0.596 | 0.562 | 81 % of maps are below the limit |
| cst, two backbones of random weights and width 384 | 0.511, 0.512 | 0.484, 0.484 | 0.025, 0.028; 0.018, 0.021 |
| cls-attention, that ViT-S/14 | 0.219 | 0.024 | 86 %, 71 % |
| cls-attention, built-in | 0.405 | 0.106 | 69 %, 54 % |
| cls-attention, the two random ones | 0.902, 0.894 | 0.851, 0.833 | 5 %, 6 %; 3 %, 4 % |

The limits lie between these, and were chosen on these pictures. They judge contrast, not masks. The mIoU of
background and foreground, where it was scored: keys of the ViT-S/14 0.49, its attention 0.47, its raw keys 0.45 (within
the noise of 0.49), built-in keys 0.42, tokens of block 10 0.29, random weights 0.25 to 0.32; the best fixed ellipse has
0.49. Random keys of a width of 64 pass: their cosines vary as widely as those of good keys.
Scores of ncut and maskcut are not judged: a cut spreads the scores of any graph, and they lie 0.41 apart on that
ViT-S/14 and 0.62 to 0.67 on random weights. Nor are kinds of scores that no method here makes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..vision.fitting import valid_patches
from .computing import NO_INSTANCE
from .merging import RELATIVE

SAMPLED, UNITS_READ = 256, 16  # maps, and the units that hold them: the file of a unit is read and hashed whole
FEWEST_PATCHES = 10  # of a map; the medians of fewer tell nothing
LIMITS: Mapping[str, float] = {"cosine01": 0.045, "share_of_max": 0.2}  # score kind → least difference


@dataclass(frozen=True, slots=True)
class Separation:
    """Medians of the scores on both sides of one cut."""

    inside: float
    outside: float

    def difference(self, kind: str) -> float:
        """In scores, or as a share of the inside for scores that are relative to their own map."""
        return 1 - self.outside / self.inside if kind in RELATIVE else self.inside - self.outside


def sample_separations(maps: Artifact) -> list[Separation]:
    """Of a fixed sample of the maps, without those that have one side only or hardly any patches."""
    positions = _choose_positions(maps.row_batches(["status", "note", "unit"]))
    if not positions:
        return []
    facts = MapsFacts.of(maps)
    rows = maps.rows_at(positions, ["threshold", "box"]).to_pylist()
    separations = []
    for row, map_RC in zip(rows, maps.read("map", positions), strict=True):
        scores = map_RC[valid_patches(tuple(row["box"]), facts.patch, facts.grid)]
        if len(scores) >= FEWEST_PATCHES and scores.min() <= row["threshold"] < scores.max():
            separations.append(_separate(scores, row["threshold"]))
    return separations


def _separate(scores: Float32[np.ndarray, " T"], threshold: float) -> Separation:
    is_inside = scores > threshold
    return Separation(float(np.median(scores[is_inside])), float(np.median(scores[~is_inside])))


def _choose_positions(batches: Iterable[pa.RecordBatch]) -> list[int]:
    """At most SAMPLED rows that hold a map with some structure, spread evenly over a few units, and these over all."""
    places, units, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for batch in batches:
        rows = zip(batch.column("status").to_pylist(), batch.column("note").to_pylist(), strict=True)
        is_map = [status == "ok" and note not in (NO_LABEL, NO_INSTANCE, NO_STRUCTURE) for status, note in rows]
        places.append(start + np.flatnonzero(is_map))
        units.append(batch.column("unit").to_numpy(zero_copy_only=False)[is_map].astype(np.int64))
        start += batch.num_rows
    position_R, unit_R = np.concatenate(places), np.concatenate(units)
    chosen = _spread(np.unique(unit_R), UNITS_READ)
    parts = [_spread(position_R[unit_R == unit], -(-SAMPLED // len(chosen))) for unit in chosen.tolist()]
    return [int(position) for part in parts for position in part][:SAMPLED]


def _spread(values: Int64[np.ndarray, " R"], number: int) -> Int64[np.ndarray, " S"]:
    """At most so many of them, evenly, the first and the last included."""
    return values[np.linspace(0, len(values) - 1, min(number, len(values))).round().astype(np.int64)]
