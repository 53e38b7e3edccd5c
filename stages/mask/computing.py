"""Computes soft maps and their thresholds from stored tokens.

Letters: R rows, T patches, H heads, E width of a head.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from ..choices import Side
from ..maps.cst import mean_of_queries
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..maps.row_thresholds import row_thresholds
from ..maps.threshold_rules import ThresholdRule
from ..maps.thresholds import foreground_share
from ..read_ahead import read_ahead
from ..stage import Work
from ..vision.fitting import Box
from .merging import merge_maps, resample_to_lattices, valid_patch_masks
from .methods import PATCHES, Method, MethodInput
from .propagation import propagate_maps
from .supports import GroupKey
from .views import TokenView, view_roles

# Size of a batch. Two are in memory: one in use and one being read. Each row has a copy of its picture's fields.
PICTURES_AT_ONCE, ROWS_AT_ONCE = 16, 32
# Notes. NO_INSTANCE marks a row for one more object than its picture has.
NO_SUPPORT, NO_INSTANCE = "no_support", "no_instance"

Fields = Mapping[str, np.ndarray]  # token field → one row each
Apply = Callable[[MethodInput], Float32[np.ndarray, "R *heads T"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masker:
    """The method, its model and its views; loaded once per process."""

    method: Method
    views: Sequence[TokenView]
    model: Any
    by_class: bool
    looks_with_others: bool
    threshold: ThresholdRule
    tau: float | None
    side: Side | None
    propagate: float  # share of a score that comes from similar patches


@dataclass(frozen=True, slots=True)
class MapRow:
    """A row that is not blocked."""

    index: int  # in the unit
    id: str
    position: int  # of the picture in the first view's row list
    label: int | None
    instance: int
    group: GroupKey
    supports: Sequence[int]  # positions in the first view's row list
    boxes: Sequence[Box]  # one per view


@dataclass(frozen=True, slots=True)
class Masked:
    map_RT: Float32[np.ndarray, "R T"]
    threshold_R: Float32[np.ndarray, " R"]
    foreground_R: Float64[np.ndarray, " R"]
    notes: Sequence[str]


def rows_to_do(work: Work) -> list[MapRow]:
    boxes = zip(*(work.upstream[role].column("box").to_pylist() for role in view_roles(work.inputs)), strict=True)
    return [
        MapRow(
            index,
            row["id"],
            row["position"],
            row["class"],
            row["instance"],
            (row["class"] or 0, row["split"] or ""),
            row["supports"],
            [tuple(box) for box in row_boxes],
        )
        for index, (row, row_boxes) in enumerate(zip(work.listing.to_pylist(), boxes, strict=True))
        if not work.blocked[index]
    ]


def batch_rows(rows: Sequence[MapRow]) -> Iterator[list[MapRow]]:
    """Batches of at most PICTURES_AT_ONCE pictures; all rows of a picture are in one batch."""
    batch: list[MapRow] = []
    pictures: set[int] = set()
    for row in rows:
        is_full = len(pictures) == PICTURES_AT_ONCE or len(batch) >= ROWS_AT_ONCE
        if row.position not in pictures and is_full:
            yield batch
            batch, pictures = [], set()
        batch.append(row)
        pictures.add(row.position)
    if batch:
        yield batch


def rows_with_fields(masker: Masker, rows: Sequence[MapRow]) -> Iterator[tuple[list[MapRow], Sequence[Fields]]]:
    """Batches of rows with the fields of every view; a thread reads and verifies the next batch meanwhile."""
    return read_ahead(lambda batch: (batch, _fields_of_views(masker, batch)), batch_rows(rows))


def compute_maps(masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields]) -> Masked:
    """Upright maps. A picture without a label gets an empty map, a constant map gets a note, and a map that is not
    finite gets no threshold and fails when it is written."""
    first = masker.views[0]
    valid_RT = valid_patch_masks([first.lattice(row.boxes[0]) for row in rows])
    map_RT = _merge_views(masker, rows, fields, masker.method.apply)
    notes = _notes(masker, rows)
    if masker.by_class:
        map_RT[_rows_without_label(rows)] = 0
        notes = [NO_LABEL if row.label is None else note for row, note in zip(rows, notes, strict=True)]
    if masker.propagate:
        turned, pictures = (first.turn(map_RT), first.turn(valid_RT)), [row.position for row in rows]
        map_RT = first.turn(propagate_maps(*turned, fields[0][PATCHES], pictures, masker.propagate))
    is_usable_R = np.isfinite(map_RT).all(axis=1) & np.array([note != NO_LABEL for note in notes])
    threshold_R, foreground_R = np.zeros(len(rows), np.float32), np.zeros(len(rows))
    is_flat_R = np.zeros(len(rows), bool)
    if is_usable_R.any():
        usable = map_RT[is_usable_R], valid_RT[is_usable_R]
        threshold_R[is_usable_R], is_flat_R[is_usable_R] = row_thresholds(masker.threshold, *usable)
        foreground_R[is_usable_R] = foreground_share(usable[0], threshold_R[is_usable_R], usable[1])
    for place in np.flatnonzero(is_flat_R).tolist():
        notes[place] = NO_INSTANCE if rows[place].instance else NO_STRUCTURE
    return Masked(map_RT, threshold_R, foreground_R, notes)


def compute_head_maps(masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields]) -> Float32[np.ndarray, "R H T"]:
    """The map of each head; the map is their mean before it is propagated."""
    assert masker.method.per_head is not None, masker.method.name
    maps_RHT = _merge_views(masker, rows, fields, masker.method.per_head)
    if masker.by_class:
        maps_RHT[_rows_without_label(rows)] = 0
    return maps_RHT


def _rows_without_label(rows: Sequence[MapRow]) -> list[int]:
    return [place for place, row in enumerate(rows) if row.label is None]


def _fields_of_views(masker: Masker, rows: Sequence[MapRow]) -> Sequence[Fields]:
    """The token fields of each row in each view; every picture is read once."""
    pictures = sorted({row.position for row in rows})
    place = {position: number for number, position in enumerate(pictures)}
    of_row = [place[row.position] for row in rows]
    is_one_row_each = of_row == list(range(len(pictures)))
    views: list[Fields] = []
    for view in masker.views:
        arrays = {name: view.read(name, pictures) for name in masker.method.reads}
        views.append({name: values if is_one_row_each else values[of_row] for name, values in arrays.items()})
    return views


def _merge_views(
    masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields], apply: Apply
) -> Float32[np.ndarray, "R *heads T"]:
    """Applies the method to every view and merges the upright maps on the patches of the first view."""
    maps, lattices = [], []
    for number, view in enumerate(masker.views):
        lattices.append([view.lattice(row.boxes[number]) for row in rows])
        valid_RT = valid_patch_masks(lattices[-1])
        method_input = MethodInput(
            fields=fields[number],
            queries=_queries(view, rows),
            valid=view.turn(valid_RT),
            grid=view.grid,
            ids=[row.id for row in rows],
            classes=[row.label for row in rows],
            pictures=[row.position for row in rows],
            instances=[row.instance for row in rows],
            tau=masker.tau,
            side=masker.side,
            model=masker.model,
        )
        maps.append(view.turn(apply(method_input)))
    if len(maps) == 1:
        return maps[0]
    method = masker.method
    assert method.merge is not None, method.name
    resampled = [
        resample_to_lattices(lattices[0], values, view_lattices, method.align_corners)
        for values, view_lattices in zip(maps, lattices, strict=True)
    ]
    return merge_maps(resampled, valid_patch_masks(lattices[0]), method.merge, method.score_kind)


def _queries(view: TokenView, rows: Sequence[MapRow]) -> Float32[Tensor, "R H E"] | None:
    """The class query of each row: that of its supports, or the picture's own if it has none."""
    if view.queries is None:
        return None
    supports = [row.supports or [row.position] for row in rows]
    queries = view.queries.at(view.positions(list(chain.from_iterable(supports))))
    row_queries = []
    for row, own in zip(rows, torch.split(queries, [len(positions) for positions in supports]), strict=True):
        total, count = view.sums.get(row.group, (None, 0))
        if total is not None and count > 1:
            row_queries.append(((total - own[0].double()) / (count - 1)).float())
        else:
            row_queries.append(mean_of_queries(own))
    return torch.stack(row_queries)


def _notes(masker: Masker, rows: Sequence[MapRow]) -> list[str]:
    """NO_SUPPORT where the picture's own class query stands in for its class."""
    counts = {group: count for group, (_, count) in masker.views[0].sums.items()}
    is_alone = [masker.looks_with_others and not row.supports and counts.get(row.group, 0) < 2 for row in rows]
    return [NO_SUPPORT if alone else "" for alone in is_alone]
