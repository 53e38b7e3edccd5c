"""The rows of a maps artifact: one per picture, or one per picture and class with the supports that it looks with.

What is planned of a row's supports is their positions and a digest of their class queries, so that a picture that is
added or changed makes those rows anew that look with it, and no other.
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
    "supports": "ints",  # positions in the tokens' row list; none where they are all of the class
    "supports_sha256": "string",
}


def object_rows(views: Sequence[Artifact], images: Artifact, instances: int) -> Iterator[pa.RecordBatch]:
    """One row per picture, or one for each object that may be found in it."""
    for rows in _pictures(views, images):
        yield _batch([_row(row, None) | {"instance": number} for row in rows for number in range(instances)])


def class_rows(views: Sequence[Artifact], images: Artifact, supports: str, seed: int) -> Iterator[pa.RecordBatch]:
    """One row per picture and class, and one without a class for a picture that has none."""
    groups = class_groups(views, images) if supports != OWN else {}
    everyone = {key: group.digest for key, group in groups.items()} if supports == ALL else {}
    for rows in _pictures(views, images):
        yield _batch(
            [
                _row(row, index, *_supports_of(row, index, groups, everyone, supports, seed))
                for row in rows
                for index in row["labels"] or [None]
            ]
        )


def class_groups(views: Sequence[Artifact], images: Artifact) -> dict[GroupKey, SupportGroup]:
    """The pictures of each class and split whose tokens are whole in every view."""
    found: dict[GroupKey, list[tuple[int, int, str]]] = {}
    for row in chain.from_iterable(_pictures(views, images)):
        if row["status"] == "ok":
            for index in row["labels"] or ():
                member = (row["position"], id_hash(row["id"]), row["cls_query_sha256"])
                found.setdefault((index, row["split"] or ""), []).append(member)
    return {
        key: SupportGroup(
            np.array([position for position, _, _ in members], np.int64),
            np.array([hashed for _, hashed, _ in members], np.uint64),
            [digest for _, _, digest in members],
        )
        for key, members in found.items()
    }


def _supports_of(
    row: Mapping[str, Json],
    index: int | None,
    groups: Mapping[GroupKey, SupportGroup],
    everyone: Mapping[GroupKey, str],
    supports: str,
    seed: int,
) -> tuple[list[int], str]:
    key = (index or 0, row["split"] or "")
    if index is None or key not in groups:
        return [], ""
    if supports == ALL:
        return [], everyone[key]
    group = groups[key]
    chosen = choose_supports(group, row["position"], row["id"], key, int(supports), seed)
    digest = hashlib.sha256("".join(group.digests[place] for place in chosen).encode()).hexdigest()
    return group.positions_N[chosen].tolist(), digest


def _pictures(views: Sequence[Artifact], images: Artifact) -> Iterator[list[dict[str, Json]]]:
    """The first view's rows with their position, what the other views have of them, and labels and split."""
    has_query = all("cls_query" in view.plan.fields for view in views)
    columns = ["id", "status", *(["cls_query_sha256"] if has_query else [])]
    first, *others = views
    start = 0
    for batch in first.row_batches(columns):
        ids = batch.column("id").to_pylist()
        seen = [batch.to_pylist(), *(view.rows_of(ids, columns, start).to_pylist() for view in others)]
        try:
            labelled = images.rows_of(ids, ["labels", "split"], start).to_pylist()
        except KeyError as error:
            raise ConfigError(
                f"{error.args[0]}, of which {first.place} has tokens; pass as --images those that they were made from"
            ) from error
        pairs = zip(labelled, zip(*seen, strict=True), strict=True)
        yield [
            {**label, **_combine_views(rows), "position": start + offset} for offset, (label, rows) in enumerate(pairs)
        ]
        start += len(ids)


def _combine_views(rows: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """A picture's row in every view as one: whole where all are, and with the class queries of all."""
    first, *others = rows
    if not others:
        return first
    failed = next((row for row in rows if row["status"] != "ok"), first)
    digests = "".join(row.get("cls_query_sha256", "") for row in rows)
    return {**first, "status": failed["status"], "cls_query_sha256": hashlib.sha256(digests.encode()).hexdigest()}


def _row(
    row: Mapping[str, Json], index: int | None, supports: Sequence[int] = (), supports_sha256: str = ""
) -> dict[str, Json]:
    return {
        "id": row["id"],
        "position": row["position"],
        "class": index,
        "instance": 0,
        "split": row["split"],
        "supports": list(supports),
        "supports_sha256": supports_sha256,
    }


def _batch(rows: list[dict[str, Json]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, tables.schema_of(LISTED))
