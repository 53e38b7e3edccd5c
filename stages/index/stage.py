"""Lists the pictures with digest, size and labels, and converts their ground-truth masks to label maps.

Planning lists names and annotations. A unit then reads each picture's bytes and header but decodes no pixels; errors
that only decoding shows appear at the first stage that decodes. Masks are decoded, because their values are the labels.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.facts import ImagesFacts
from ...manifests.artifact.fields import Field
from ...manifests.artifact.ledger import Record
from ...manifests.datasets.listing import PictureEntry
from ...manifests.datasets.readers import list_dataset
from ...manifests.errors import RowFailed
from ...manifests.files.sealed import Json
from ...manifests.pictures.decoder import inspect_picture
from ...manifests.pictures.limits import Limits
from ...manifests.pictures.sources import read_source, stat_source
from ..read_ahead import read_ahead
from ..stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from .config import INDEX, IndexConfig
from .masks import label_map

T = TypeVar("T")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)  # reads and hashes overlap; parsing headers holds the GIL
REMOTE_THREADS = 16  # an object store answers slowly, but many requests at once
LISTED: Mapping[str, str] = {
    "id": "string",
    "uri": "string",
    "labels": "ints",  # class indices; null: read from the mask
    "split": "string",
    "mask": "string",
    "shapes": "string",
}


@dataclass(frozen=True, slots=True)
class Indexed:
    """The result for one picture."""

    result: RowResult
    mask: bytes | None
    observed: str


def plan(config: IndexConfig, inputs: Inputs, known: Known) -> RowList:
    listing = list_dataset(config.source, known.classes)
    facts = ImagesFacts(listing.root, listing.classes, listing.mask_kind)
    return RowList(LISTED, _batches(listing.entries), facts.as_json())


def fields(config: IndexConfig, inputs: Inputs) -> Sequence[Field]:
    # An empty basis: a moved dataset that is indexed again has the same bytes and labels, so nothing is recomputed.
    return (
        Field(name="picture", kind="columns", columns=("sha256",), basis={}),
        Field(name="labels", kind="columns", columns=("labels",), basis={}),
        *([Field(name="mask", kind="table", basis={}, row_bytes=8 * 1024)] if config.may_have_masks else []),
    )


def columns(config: IndexConfig) -> Mapping[str, str]:
    return {
        "uri": "string",
        "sha256": "string",  # of the picture's bytes
        "bytes": "int64",
        "width": "int64",  # as decoded, EXIF orientation applied
        "height": "int64",
        "mode": "string",  # as stored
        "orientation": "int64",  # EXIF, 1 where it says nothing
        "frames": "int64",  # the first is used
        "labels": "ints",  # class indices
        "split": "string",
    }


def run_unit(work: Work, config: IndexConfig, prepared: Any) -> UnitResult:
    facts = ImagesFacts.from_json(work.facts)
    rows = work.listing.to_pylist()
    indexed = _map_in_threads(lambda row: _index_row(row, config.limits, facts), rows, facts.root)
    return UnitResult(
        rows=[row.result for row in indexed],
        cells={"mask": [row.mask for row in indexed]},
        observed=[row.observed for row in indexed],
    )


def observe(work: Work, config: IndexConfig, record: Record | None, since: float) -> Sequence[str]:
    """The digests of every row's sources now; with a record to trust, unchanged sources are not read."""
    root = ImagesFacts.from_json(work.facts).root
    rows = work.listing.to_pylist()

    def observe_row(position: int) -> str:
        row = rows[position]
        if record is not None:
            before = str(record.rows["observed"][position])
            untouched = _is_unchanged(root, row["uri"], record.rows["bytes"][position], since)
            if untouched and (not row["mask"] or _is_unchanged(root, row["mask"], None, since)):
                return before
        data, picture = _read_with_digest(root, row["uri"])
        return f"{picture}|{'' if data is None else _read_with_digest(root, row['mask'])[1]}"

    return _map_in_threads(observe_row, range(len(rows)), root)


def _map_in_threads(function: Callable[[T], R], values: Sequence[T], root: str) -> list[R]:
    """The function of every value, in order. Each thread takes one slice: a hand-over costs as much as a row."""
    num_threads = REMOTE_THREADS if "://" in root else THREADS
    length = -(-len(values) // num_threads)
    slices = [values[start : start + length] for start in range(0, len(values), length)]
    results = read_ahead(lambda part: [function(value) for value in part], slices, len(slices), num_threads)
    return [result for part in results for result in part]


def _index_row(row: Mapping[str, Json], limits: Limits, facts: ImagesFacts) -> Indexed:
    """Indexes one picture; an error fails only its own row."""
    scalars: dict[str, Json] = {name: row[name] for name in ("uri", "labels", "split")}
    try:
        picture = read_source(facts.root, row["uri"])
    except RowFailed as failed:
        return Indexed(RowResult(scalars, reason=failed.reason), None, f"{failed.reason}|")
    sha256 = hashlib.sha256(picture).hexdigest()
    mask_bytes, mask_seen = _read_with_digest(facts.root, row["mask"])
    observed = f"{sha256}|{mask_seen}"
    scalars |= {"sha256": sha256, "bytes": len(picture)}
    try:
        header = inspect_picture(picture, limits)
        mask = label_map(row, mask_bytes, mask_seen, header, facts.classes, facts.mask_kind)
    except RowFailed as failed:
        return Indexed(RowResult(scalars, reason=failed.reason), None, observed)
    scalars |= {name: getattr(header, name) for name in ("width", "height", "mode", "orientation", "frames")}
    scalars["labels"] = mask.labels
    return Indexed(RowResult(scalars, note=mask.note), mask.png, observed)


def _read_with_digest(root: str, uri: str) -> tuple[bytes | None, str]:
    """The bytes of a source and their digest, or None and why it cannot be read."""
    if not uri:
        return None, ""
    try:
        data = read_source(root, uri)
    except RowFailed as failed:
        return None, str(failed.reason)
    return data, hashlib.sha256(data).hexdigest()


def _is_unchanged(root: str, uri: str, size: int | None, since: float) -> bool:
    """Whether a source was not written since and has the same size, if one is given."""
    stat = stat_source(root, uri)
    return stat is not None and stat.modified <= since and (size is None or stat.size == size)


def _batches(entries: Iterable[PictureEntry]) -> Iterator[pa.RecordBatch]:
    schema = tables.schema_of(LISTED)
    entries = iter(entries)
    while rows := list(islice(entries, tables.ROW_GROUP)):
        columns = {name: [getattr(entry, name) for entry in rows] for name in LISTED}
        yield pa.RecordBatch.from_pydict(columns, schema)


STAGE = Stage(
    command=INDEX, code_version=1, plan=plan, fields=fields, columns=columns, run_unit=run_unit, observe=observe
)
