"""From the tokens of some pictures to soft maps with their thresholds.

Letters: R rows, T patches, H heads, E width of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from ...manifests.tokens import Tokens
from ..attention.cst import mean_of_queries
from ..attention.object_classes import NO_LABEL
from ..attention.thresholds import foreground_share
from ..stage import Work
from ..vision.fitting import Box, valid_patches
from .methods import Given, Method
from .supports import GroupKey, Queries
from .thresholds import thresholds

PICTURES_AT_ONCE = 16  # whose tokens are in memory, twice: those that are used, and those that are read meanwhile
NO_SUPPORT, NO_STRUCTURE = "no_support", "no_structure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Masker:
    """What is loaded once per process."""

    method: Method
    tokens: Tokens
    model: Any
    queries: Queries | None
    sums: Mapping[GroupKey, tuple[Tensor, int]]  # where all look with all: of each class the sum, and of how many
    by_class: bool
    looks_with_others: bool
    threshold: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be done."""

    index: int  # in the unit
    position: int  # of the picture among the tokens
    label: int | None
    group: GroupKey
    supports: Sequence[int]  # positions among the tokens
    box: Box


@dataclass(frozen=True, slots=True)
class Masked:
    map_RT: Float32[np.ndarray, "R T"]
    threshold_R: Float32[np.ndarray, " R"]
    foreground_R: Float64[np.ndarray, " R"]
    notes: Sequence[str]


def rows_to_do(work: Work) -> list[Row]:
    boxes = work.upstream["tokens"].column("box").to_pylist()
    return [
        Row(
            index,
            row["position"],
            row["class"],
            (row["class"] or 0, row["split"] or ""),
            row["supports"],
            tuple(boxes[index]),
        )
        for index, row in enumerate(work.listing.to_pylist())
        if not work.blocked[index]
    ]


def stretches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """So many rows that no more than PICTURES_AT_ONCE pictures are read together."""
    some: list[Row] = []
    pictures: set[int] = set()
    for row in rows:
        if row.position not in pictures and len(pictures) == PICTURES_AT_ONCE:
            yield some
            some, pictures = [], set()
        some.append(row)
        pictures.add(row.position)
    if some:
        yield some


def read_ahead(masker: Masker, rows: Sequence[Row]) -> Iterator[tuple[list[Row], dict[str, np.ndarray]]]:
    """Stretches of rows with their token fields, of which the next are read and verified by a thread meanwhile."""
    with ThreadPoolExecutor(1, "maskmill-read") as reader:
        before: tuple[list[Row], Future[dict[str, np.ndarray]]] | None = None
        for some in stretches(rows):
            coming = some, reader.submit(_fields, masker, some)
            if before is not None:
                yield before[0], before[1].result()
            before = coming
        if before is not None:
            yield before[0], before[1].result()


def masked(masker: Masker, rows: Sequence[Row], fields: Mapping[str, np.ndarray]) -> Masked:
    """A picture that has no label has no class to look for, and an empty map. A map of one value is noted; one that is
    not finite has no threshold, and fails when it is written."""
    given, notes = _given(masker, rows, fields)
    valid_RT = given.valid
    map_RT = masker.method.apply(given)
    if masker.by_class:
        map_RT[_without_label(rows)] = 0
        notes = [NO_LABEL if row.label is None else note for row, note in zip(rows, notes, strict=True)]
    is_usable_R = np.isfinite(map_RT).all(axis=1) & np.array([note != NO_LABEL for note in notes])
    threshold_R, foreground_R = np.zeros(len(rows), np.float32), np.zeros(len(rows))
    is_flat_R = np.zeros(len(rows), bool)
    if is_usable_R.any():
        usable = map_RT[is_usable_R], valid_RT[is_usable_R]
        threshold_R[is_usable_R], is_flat_R[is_usable_R] = thresholds(masker.threshold, *usable)
        foreground_R[is_usable_R] = foreground_share(usable[0], threshold_R[is_usable_R], usable[1])
    notes = [NO_STRUCTURE if is_flat else note for is_flat, note in zip(is_flat_R, notes, strict=True)]
    return Masked(map_RT, threshold_R, foreground_R, notes)


def head_maps(masker: Masker, rows: Sequence[Row], fields: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "R H T"]:
    """Of each head what the map is the mean of."""
    assert masker.method.per_head is not None, masker.method.name
    given, _ = _given(masker, rows, fields)
    maps_RHT = masker.method.per_head(given)
    if masker.by_class:
        maps_RHT[_without_label(rows)] = 0
    return maps_RHT


def _given(masker: Masker, rows: Sequence[Row], fields: Mapping[str, np.ndarray]) -> tuple[Given, list[str]]:
    queries, notes = _queries(masker, rows)
    return Given(fields, queries, _valid(masker, rows), [row.label for row in rows], masker.model), notes


def _without_label(rows: Sequence[Row]) -> list[int]:
    return [place for place, row in enumerate(rows) if row.label is None]


def _fields(masker: Masker, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The token fields of each row; every picture is read once."""
    pictures = sorted({row.position for row in rows})
    place = {position: number for number, position in enumerate(pictures)}
    of_row = [place[row.position] for row in rows]
    read = {name: masker.tokens.at(name, pictures) for name in masker.method.fields}
    is_each_once = of_row == list(range(len(pictures)))
    return {name: values if is_each_once else values[of_row] for name, values in read.items()}


def _queries(masker: Masker, rows: Sequence[Row]) -> tuple[Float32[Tensor, "R H E"] | None, list[str]]:
    """The class query of each row; the picture's own where no other can stand for its class, which is noted."""
    if masker.queries is None:
        return None, [""] * len(rows)
    looked_with = [row.supports or [row.position] for row in rows]
    found = masker.queries.at([position for each in looked_with for position in each])
    queries, notes = [], []
    for row, each in zip(rows, torch.split(found, [len(each) for each in looked_with]), strict=True):
        total, count = masker.sums.get(row.group, (None, 0))
        if total is not None and count > 1:
            queries.append(((total - each[0].double()) / (count - 1)).float())
        else:
            queries.append(mean_of_queries(each))
        alone = masker.looks_with_others and not row.supports and count < 2
        notes.append(NO_SUPPORT if alone else "")
    return torch.stack(queries), notes


def _valid(masker: Masker, rows: Sequence[Row]) -> Bool[np.ndarray, "R T"]:
    described = masker.tokens.backbone
    patch, grid = tuple(described["patch"]), tuple(described["grid"])
    by_box = {box: valid_patches(box, patch, grid).ravel() for box in {row.box for row in rows}}
    return np.stack([by_box[row.box] for row in rows])
