"""Makes better maps from the maps of heads, with enhancers that were fitted on a few masks; `refine` cuts them later.

Letters: N rows of a unit, K rows read together, H heads, R C rows and columns of patches, P Q of cells, T all cells.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32
from torch import nn

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, network_by_held_out_id
from ...manifests.artifact.facts import MapsFacts
from ...manifests.artifact.fields import Field
from ...manifests.files.sealed import Json
from ..maps.cutting import COLUMNS, CUT, KEY
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..maps.row_thresholds import row_thresholds
from ..maps.threshold_rules import ThresholdRule
from ..maps.thresholds import foreground_share
from ..stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from .applying import enhance_map, load_networks
from .cells import Cells, cells_of, facts_of_enhanced
from .config import ENHANCE, EnhanceConfig
from .kinds import HEAD_MAPS, refuse_other_kind, refuse_without_heads, refuse_without_heads_in_recipe

LISTED: Mapping[str, str] = {
    "id": "string",
    "class": "int64",
    "instance": "int64",
    "maps": "ints",  # position in the maps' row list
    "network": "int64",  # the network that holds the picture out; null: the mean of all
}
ROWS_AT_ONCE = 64  # rows whose maps of heads are in memory


def plan(config: EnhanceConfig, inputs: Inputs, known: Known) -> RowList:
    maps = inputs["maps"]
    facts = facts_of_enhanced(MapsFacts.of(maps), _cells(inputs)).as_json()
    return RowList(LISTED, _row_batches(maps, network_by_held_out_id(inputs["model"])), facts, KEY)


def fields(config: EnhanceConfig, inputs: Inputs) -> Sequence[Field]:
    _refuse_unusable_maps(inputs)
    return [Field(name="map", kind="array", shape=_cells(inputs).grid, dtype="float32"), CUT]


def columns(config: EnhanceConfig) -> Mapping[str, str]:
    return {**COLUMNS, "network": "int64"}


def reads(config: EnhanceConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    _refuse_unusable_maps(inputs)
    return {"maps": (HEAD_MAPS, "cut"), "images": (), "model": (WEIGHTS, SEEN)}


def prepare(config: EnhanceConfig, inputs: Inputs) -> nn.ModuleList:
    return load_networks(inputs["model"])


def run_unit(work: Work, config: EnhanceConfig, networks: nn.ModuleList) -> UnitResult:
    """Enhances the maps of a unit; a picture without a label keeps its empty map."""
    cells = _cells(work.inputs)
    rows = [batch.to_pylist()[0] for batch in work.gather_rows("maps")]
    map_NPQ = np.zeros((len(rows), *cells.grid), np.float32)
    results = [_map_row(row, row["note"]) for row in rows]
    for index, used, heads_HRC in _rows_to_enhance(work, rows, networks):
        box = tuple(rows[index]["box"])
        map_NPQ[index] = enhance_map(used, heads_HRC, box, cells)
        results[index] = _apply_threshold(config.threshold, rows[index], map_NPQ[index], cells.valid(box))
    return UnitResult(results, {"map": map_NPQ})


def _rows_to_enhance(
    work: Work, rows: Sequence[Mapping[str, Json]], networks: nn.ModuleList
) -> Iterator[tuple[int, Sequence[nn.Module], Float32[np.ndarray, "H R C"]]]:
    """Each labelled row with its networks and its maps of heads."""
    places, own = (work.listing.column(name).to_pylist() for name in ("maps", "network"))
    doable = [index for index, row in enumerate(rows) if not work.blocked[index] and row["note"] != NO_LABEL]
    for start in range(0, len(doable), ROWS_AT_ONCE):
        batch = doable[start : start + ROWS_AT_ONCE]
        heads_KHRC = work.inputs["maps"].read(HEAD_MAPS, [places[index][0] for index in batch])
        for index, heads_HRC in zip(batch, heads_KHRC, strict=True):
            yield index, list(networks) if own[index] is None else [networks[own[index]]], heads_HRC


def _map_row(row: Mapping[str, Json], note: str, threshold: float = 0.0, foreground: float = 0.0) -> RowResult:
    kept = {name: row[name] for name in ("box", "height", "width")}
    return RowResult({**kept, "threshold": threshold, "foreground": foreground}, note=note)


def _apply_threshold(
    rule: ThresholdRule, row: Mapping[str, Json], map_PQ: Float32[np.ndarray, "P Q"], valid_PQ: Bool[np.ndarray, "P Q"]
) -> RowResult:
    map_1T, valid_1T = map_PQ.reshape(1, -1), valid_PQ.reshape(1, -1)
    threshold_1, is_flat_1 = row_thresholds(rule, map_1T, valid_1T)
    foreground_1 = foreground_share(map_1T, threshold_1, valid_1T)
    note = NO_STRUCTURE if is_flat_1[0] else "" if row["note"] == NO_STRUCTURE else row["note"]
    return _map_row(row, note, float(threshold_1[0]), float(foreground_1[0]))


def _refuse_unusable_maps(inputs: Inputs) -> None:
    refuse_without_heads(inputs["maps"])
    refuse_other_kind(inputs["maps"], inputs["model"])


def _cells(inputs: Inputs) -> Cells:
    return cells_of(MapsFacts.of(inputs["maps"]), inputs["model"].summary.counts["cells"])


def _row_batches(maps: Artifact, own: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in maps.row_batches(["id", "class", "instance"]):
        rows = [
            {**row, "maps": [start + offset], "network": own.get(row["id"])}
            for offset, row in enumerate(batch.to_pylist())
        ]
        yield pa.RecordBatch.from_pylist(rows, tables.schema_of(LISTED))
        start += len(rows)


STAGE = Stage(
    command=ENHANCE,
    code_version=1,
    refuse=refuse_without_heads_in_recipe,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    prepare=prepare,
    run_unit=run_unit,
    gathers={"maps": "maps"},
    libraries=("numpy", "torch"),
)
