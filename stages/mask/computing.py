"""From the tokens of some pictures to soft maps with their thresholds.

Letters: R rows, T patches, H heads, E width of a head.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from ..maps.cst import mean_of_queries
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..maps.row_thresholds import row_thresholds
from ..maps.threshold_rules import ThresholdRule
from ..maps.thresholds import foreground_share
from ..read_ahead import read_ahead
from ..stage import Work
from ..vision.fitting import Box
from .merging import merge_maps, mirror_patches, resample_to_lattices, valid_patch_masks
from .methods import Method, MethodInput
from .supports import GroupKey
from .views import TokenView, view_roles

# Whose tokens are in memory, twice: those that are used, and those that are read meanwhile. Of several rows of one
# picture each has them, so begun stretches end sooner.
PICTURES_AT_ONCE, ROWS_AT_ONCE = 16, 32
# Notes. The second is of a row for one more object than there are in its picture.
NO_SUPPORT, NO_INSTANCE = "no_support", "no_instance"

Fields = Mapping[str, np.ndarray]  # token field → one row each
Apply = Callable[[MethodInput], Float32[np.ndarray, "R *heads T"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masker:
    """What is loaded once per process."""

    method: Method
    views: Sequence[TokenView]
    model: Any
    by_class: bool
    looks_with_others: bool
    threshold: ThresholdRule
    tau: float | None


@dataclass(frozen=True, slots=True)
class MapRow:
    """A row that can be done."""

    index: int  # in the unit
    position: int  # of the picture among the first view's tokens
    label: int | None
    instance: int
    group: GroupKey
    supports: Sequence[int]  # positions among the same
    boxes: Sequence[Box]  # in each view


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
            row["position"],
            row["class"],
            row["instance"],
            (row["class"] or 0, row["split"] or ""),
            row["supports"],
            [tuple(box) for box in of_views],
        )
        for index, (row, of_views) in enumerate(zip(work.listing.to_pylist(), boxes, strict=True))
        if not work.blocked[index]
    ]


def batch_rows(rows: Sequence[MapRow]) -> Iterator[list[MapRow]]:
    """So many rows that no more than PICTURES_AT_ONCE pictures are read together; rows of one are not parted."""
    some: list[MapRow] = []
    pictures: set[int] = set()
    for row in rows:
        is_full = len(pictures) == PICTURES_AT_ONCE or len(some) >= ROWS_AT_ONCE
        if row.position not in pictures and is_full:
            yield some
            some, pictures = [], set()
        some.append(row)
        pictures.add(row.position)
    if some:
        yield some


def rows_with_fields(masker: Masker, rows: Sequence[MapRow]) -> Iterator[tuple[list[MapRow], Sequence[Fields]]]:
    """Stretches of rows with every view's fields; a thread reads and verifies the next stretch meanwhile."""
    return read_ahead(lambda some: (some, _fields_of_views(masker, some)), batch_rows(rows))


def compute_maps(masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields]) -> Masked:
    """Upright maps. A picture that has no label has no class to look for, and an empty map. A map of one value is
    noted; one that is not finite has no threshold, and fails when it is written."""
    first = masker.views[0]
    valid_RT = valid_patch_masks([first.lattice(row.boxes[0]) for row in rows])
    map_RT = _merge_views(masker, rows, fields, masker.method.apply)
    notes = _notes(masker, rows)
    if masker.by_class:
        map_RT[_rows_without_label(rows)] = 0
        notes = [NO_LABEL if row.label is None else note for row, note in zip(rows, notes, strict=True)]
    is_usable_R = np.isfinite(map_RT).all(axis=1) & np.array([note != NO_LABEL for note in notes])
    threshold_R, foreground_R = np.zeros(len(rows), np.float32), np.zeros(len(rows))
    is_flat_R = np.zeros(len(rows), bool)
    if is_usable_R.any():
        usable = map_RT[is_usable_R], valid_RT[is_usable_R]
        threshold_R[is_usable_R], is_flat_R[is_usable_R] = row_thresholds(masker.threshold, *usable)
        foreground_R[is_usable_R] = foreground_share(usable[0], threshold_R[is_usable_R], usable[1])
    nothing = [NO_INSTANCE if row.instance else NO_STRUCTURE for row in rows]
    notes = [flat if is_flat else note for is_flat, flat, note in zip(is_flat_R, nothing, notes, strict=True)]
    return Masked(map_RT, threshold_R, foreground_R, notes)


def compute_head_maps(masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields]) -> Float32[np.ndarray, "R H T"]:
    """Of each head what the map is the mean of."""
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
    is_each_once = of_row == list(range(len(pictures)))
    found: list[Fields] = []
    for view in masker.views:
        read = {name: view.tokens.at(name, view.positions(pictures)) for name in masker.method.fields}
        found.append({name: values if is_each_once else values[of_row] for name, values in read.items()})
    return found


def _merge_views(
    masker: Masker, rows: Sequence[MapRow], fields: Sequence[Fields], apply: Apply
) -> Float32[np.ndarray, "R *heads T"]:
    """What the method gives of every view, upright and as one, on the patches of the first."""
    maps, lattices = [], []
    for number, view in enumerate(masker.views):
        lattices.append([view.lattice(row.boxes[number]) for row in rows])
        valid_RT = valid_patch_masks(lattices[-1])
        given_valid_RT = mirror_patches(valid_RT, view.grid) if view.is_flipped else valid_RT
        found = apply(_method_input(masker, view, rows, fields[number], given_valid_RT))
        maps.append(mirror_patches(found, view.grid) if view.is_flipped else found)
    if len(maps) == 1:
        return maps[0]
    method = masker.method
    assert method.merge is not None, method.name
    brought = [
        resample_to_lattices(lattices[0], found, of_view, method.align_corners)
        for found, of_view in zip(maps, lattices, strict=True)
    ]
    return merge_maps(brought, valid_patch_masks(lattices[0]), method.merge, method.score_kind)


def _method_input(
    masker: Masker, view: TokenView, rows: Sequence[MapRow], fields: Fields, valid_RT: Bool[np.ndarray, "R T"]
) -> MethodInput:
    return MethodInput(
        fields=fields,
        queries=_queries(view, rows),
        valid=valid_RT,
        grid=view.grid,
        classes=[row.label for row in rows],
        pictures=[row.position for row in rows],
        instances=[row.instance for row in rows],
        tau=masker.tau,
        model=masker.model,
    )


def _queries(view: TokenView, rows: Sequence[MapRow]) -> Float32[Tensor, "R H E"] | None:
    """The class query of each row; the picture's own where no other can stand for its class."""
    if view.queries is None:
        return None
    looked_with = [row.supports or [row.position] for row in rows]
    found = view.queries.at(view.positions([position for each in looked_with for position in each]))
    queries = []
    for row, each in zip(rows, torch.split(found, [len(each) for each in looked_with]), strict=True):
        total, count = view.sums.get(row.group, (None, 0))
        if total is not None and count > 1:
            queries.append(((total - each[0].double()) / (count - 1)).float())
        else:
            queries.append(mean_of_queries(each))
    return torch.stack(queries)


def _notes(masker: Masker, rows: Sequence[MapRow]) -> list[str]:
    """Where a picture's own class query had to stand for its class."""
    counts = {group: count for group, (_, count) in masker.views[0].sums.items()}
    alone = [masker.looks_with_others and not row.supports and counts.get(row.group, 0) < 2 for row in rows]
    return [NO_SUPPORT if each else "" for each in alone]
