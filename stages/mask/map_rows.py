"""The rows of a maps artifact: one per picture, or one per picture and class with its supports.

The plan holds the supports' positions and a digest of their class queries. A picture that is added or changed
therefore recomputes only the rows that it supports.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from .config import ALL, OWN
from .supports import GroupKey, SupportGroup, choose_supports, id_hash

LISTED: Mapping[str, str] = {
    "id": "string",
    "position": "int64",  # in the tokens' row list
    "class": "int64",  # null: whatever stands out
    "instance": "int64",
    "split": "string",
    "supports": "ints",  # positions in the tokens' row list; empty if all pictures of the class are
    "supports_sha256": "string",
}


def object_rows(views: Sequence[Artifact], images: Artifact, instances: int) -> Iterator[pa.RecordBatch]:
    """One row per picture and object to look for."""
    for rows in _pictures(views, images):
        yield _batch([_row(row, None) | {"instance": number} for row in rows for number in range(instances)])


def class_rows(
    views: Sequence[Artifact], images: Artifact, queries: str, supports: str, seed: int
) -> Iterator[pa.RecordBatch]:
    """One row per picture and class; a picture without labels has one row without a class. `queries` is the field of
    class queries."""
    groups = class_groups(views, images, queries) if supports != OWN else {}
    digests = {key: group.digest for key, group in groups.items()} if supports == ALL else {}

    def supports_of(row: Mapping[str, Json], index: int | None) -> tuple[Sequence[int], str]:
        key = (index or 0, row["split"] or "")
        if index is None or key not in groups:
            return [], ""
        if supports == ALL:
            return [], digests[key]
        group = groups[key]
        chosen = choose_supports(group, row["position"], row["id"], key, int(supports), seed)
        digest = hashlib.sha256("".join(group.digests[place] for place in chosen).encode()).hexdigest()
        return group.positions_N[chosen].tolist(), digest

    for rows in _pictures(views, images):
        pairs = [(row, index) for row in rows for index in row["labels"] or [None]]
        yield _batch([_row(row, index, *supports_of(row, index)) for row, index in pairs])


def class_groups(views: Sequence[Artifact], images: Artifact, queries: str) -> dict[GroupKey, SupportGroup]:
    """The pictures of each class and split that have tokens in every view."""
    groups: dict[GroupKey, list[tuple[int, int, str]]] = {}
    for row in chain.from_iterable(_pictures(views, images, queries)):
        if row["status"] == "ok":
            for index in row["labels"] or ():
                member = (row["position"], id_hash(row["id"]), row["query_sha256"])
                groups.setdefault((index, row["split"] or ""), []).append(member)
    return {
        key: SupportGroup(
            np.array([position for position, _, _ in members], np.int64),
            np.array([hashed for _, hashed, _ in members], np.uint64),
            [digest for _, _, digest in members],
        )
        for key, members in groups.items()
    }


def _pictures(views: Sequence[Artifact], images: Artifact, queries: str = "") -> Iterator[list[dict[str, Json]]]:
    """The first view's rows with position, labels, split, and the status and digest over all views."""
    columns, names = ["id", "status"], ["id", "status"]
    if queries:
        columns, names = [*columns, f"{queries}_sha256"], [*names, "query_sha256"]
    first, *others = views
    start = 0
    for batch in first.row_batches(columns):
        ids = batch.column("id").to_pylist()
        tables_of_views = [pa.table(batch), *(view.rows_of(ids, columns, start) for view in others)]
        view_rows = [rows.select(columns).rename_columns(names).to_pylist() for rows in tables_of_views]
        try:
            labelled = images.rows_of(ids, ["labels", "split"], start).to_pylist()
        except KeyError as error:
            raise ConfigError(
                f"{error.args[0]}, but {first.place} has tokens of it; pass as --images the images they were made from"
            ) from error
        pairs = zip(labelled, zip(*view_rows, strict=True), strict=True)
        yield [
            {**label, **_combine_views(rows), "position": start + offset} for offset, (label, rows) in enumerate(pairs)
        ]
        start += len(ids)


def _combine_views(rows: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """One row for a picture: ok if it is ok in every view, with one digest of the class queries of all views."""
    first, *others = rows
    if not others:
        return first
    failed = next((row for row in rows if row["status"] != "ok"), first)
    digests = "".join(row.get("query_sha256", "") for row in rows)
    return {**first, "status": failed["status"], "query_sha256": hashlib.sha256(digests.encode()).hexdigest()}


def _row(
    row: Mapping[str, Json], index: int | None, supports: Sequence[int] = (), supports_sha256: str = ""
) -> dict[str, Json]:
    picture = {name: row[name] for name in ("id", "position", "split")}
    return {**picture, "class": index, "instance": 0, "supports": list(supports), "supports_sha256": supports_sha256}


def _batch(rows: list[dict[str, Json]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, tables.schema_of(LISTED))
