"""Which pictures there are: their bytes' digest, size and labels, and their ground-truth masks as label maps.

Planning lists names and annotations. A unit then reads each picture's bytes and header, and nothing of its pixels; what
only decoding shows fails at the first stage that decodes. A mask is read in full, because its values are the labels.
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

THREADS = min(4, os.cpu_count() or 1)  # a disk's reads and hashes overlap; headers hold the interpreter
REMOTE_THREADS = 16  # an object store answers late, and to many at once
LISTED: Mapping[str, str] = {
    "id": "string",
    "uri": "string",
    "labels": "ints",  # class indices; null: to be read off the mask
    "split": "string",
    "mask": "string",
    "shapes": "string",
}


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a unit found of one picture."""

    result: RowResult
    mask: bytes | None
    observed: str


def plan(config: IndexConfig, inputs: Inputs, known: Known) -> RowList:
    listing = list_dataset(config.source, known.classes)
    facts = ImagesFacts(listing.root, listing.classes, listing.mask_kind)
    return RowList(LISTED, _batches(listing.entries), facts.as_json())


def fields(config: IndexConfig, inputs: Inputs) -> Sequence[Field]:
    # A picture is its bytes and labels are their numbers, wherever they were listed from: moving a dataset and
    # indexing it again changes nothing for the stages that read it.
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
        "frames": "int64",  # of which the first is used
        "labels": "ints",  # class indices
        "split": "string",
    }


def run_unit(work: Work, config: IndexConfig, prepared: Any) -> UnitResult:
    facts = ImagesFacts.from_json(work.facts)
    rows = work.listing.to_pylist()
    found = _map_in_threads(lambda row: _index_row(row, config.limits, facts), rows, facts.root)
    return UnitResult(
        rows=[each.result for each in found],
        cells={"mask": [each.mask for each in found]},
        observed=[each.observed for each in found],
    )


def observe(work: Work, config: IndexConfig, record: Record | None, since: float) -> Sequence[str]:
    """What reading every row's sources would show now; given a record to trust, untouched sources are not read."""
    root = ImagesFacts.from_json(work.facts).root
    rows = work.listing.to_pylist()

    def observe_row(position: int) -> str:
        row = rows[position]
        if record is not None:
            before = str(record.rows["observed"][position])
            untouched = _is_unchanged(root, row["uri"], record.rows["bytes"][position], since)
            if untouched and (not row["mask"] or _is_unchanged(root, row["mask"], None, since)):
                return before
        picture = _source_digest(root, row["uri"])
        is_readable = len(picture) == 64
        return f"{picture}|{_source_digest(root, row['mask']) if is_readable else ''}"

    return _map_in_threads(observe_row, range(len(rows)), root)


def _map_in_threads(function: Callable[[T], R], values: Sequence[T], root: str) -> list[R]:
    """The function of every value, in order: each thread takes a stretch, for a hand-over costs as much as a header."""
    num_threads = REMOTE_THREADS if "://" in root else THREADS
    stretch = -(-len(values) // num_threads)
    stretches = [values[start : start + stretch] for start in range(0, len(values), stretch)]
    done = read_ahead(lambda part: [function(value) for value in part], stretches, len(stretches), num_threads)
    return [result for part in done for result in part]


def _index_row(row: Mapping[str, Json], limits: Limits, facts: ImagesFacts) -> Indexed:
    """One picture; whatever is wrong with it is its own row's."""
    try:
        picture = read_source(facts.root, row["uri"])
    except RowFailed as failed:
        return Indexed(_failure_result(row, failed), None, f"{failed.reason}|")
    sha256 = hashlib.sha256(picture).hexdigest()
    mask_bytes, mask_seen = _mask_bytes(facts.root, row["mask"])
    observed = f"{sha256}|{mask_seen}"
    scalars: dict[str, Json] = {"uri": row["uri"], "sha256": sha256, "bytes": len(picture), "split": row["split"]}
    try:
        header = inspect_picture(picture, limits)
        mask = label_map(row, mask_bytes, mask_seen, header, facts.classes, facts.mask_kind)
    except RowFailed as failed:
        return Indexed(RowResult({**scalars, "labels": row["labels"]}, reason=failed.reason), None, observed)
    scalars |= {
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "orientation": header.orientation,
        "frames": header.frames,
        "labels": mask.labels,
    }
    return Indexed(RowResult(scalars, note=mask.note), mask.png, observed)


def _failure_result(row: Mapping[str, Json], failed: RowFailed) -> RowResult:
    return RowResult({"uri": row["uri"], "labels": row["labels"], "split": row["split"]}, reason=failed.reason)


def _mask_bytes(root: str, uri: str) -> tuple[bytes | None, str]:
    """A mask file's bytes and their digest, or nothing and why."""
    if not uri:
        return None, ""
    try:
        data = read_source(root, uri)
    except RowFailed as failed:
        return None, str(failed.reason)
    return data, hashlib.sha256(data).hexdigest()


def _source_digest(root: str, uri: str) -> str:
    """What reading a source would show: the digest of its bytes, or why it cannot be read."""
    try:
        return hashlib.sha256(read_source(root, uri)).hexdigest() if uri else ""
    except RowFailed as failed:
        return str(failed.reason)


def _is_unchanged(root: str, uri: str, size: int | None, since: float) -> bool:
    """Whether a source has the size it had, where that is kept, and has not been written since."""
    found = stat_source(root, uri)
    return found is not None and found.modified <= since and (size is None or found.size == size)


def _batches(entries: Iterable[PictureEntry]) -> Iterator[pa.RecordBatch]:
    schema = tables.schema_of(LISTED)
    entries = iter(entries)
    while rows := list(islice(entries, tables.ROW_GROUP)):
        columns = {name: [getattr(entry, name) for entry in rows] for name in LISTED}
        yield pa.RecordBatch.from_pydict(columns, schema)


STAGE = Stage(
    command=INDEX,
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
    observe=observe,
)
