"""The published dataset's own schema: what a row says, and what readers outside this package are told of it.

The Parquet files of a dataset can be read without this package: `mask` is an image column as Hugging Face's datasets
have it (a palette PNG), and so is `image`, which is null where the pictures are not inside.
"""

import difflib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from ..artifact.artifact import Artifact, open_artifact
from ..artifact.plan import listing_batches
from ..classes import ClassTable
from ..errors import ConfigError, CorruptArtifact, InputError, MissingArtifact, StaleArtifact, UnfinishedArtifact
from ..files.sealed import Json
from ..pictures.sources import open_user_file

FRAME = "data"  # the field, and the folder of its files
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Of one class in one picture. The measures without pixels or map to measure are null.
OBJECT = pa.struct(
    [
        ("class", pa.int64()),
        ("name", pa.string()),
        ("source", pa.string()),  # gt, pseudo, or enhanced: pseudo, of maps that a few masks have made better
        ("score", pa.float64()),  # the mean of its soft map over its pixels
        ("area", pa.float64()),
        ("border_touch", pa.float64()),
        ("num_components", pa.int64()),
        ("largest_share", pa.float64()),
        ("mean_inside", pa.float64()),
        ("mean_outside", pa.float64()),
        ("entropy_inside", pa.float64()),
        ("entropy_outside", pa.float64()),
        ("agreement", pa.float64()),
        ("method_agreement", pa.float64()),  # datasets that were made before it came have none
    ]
)
OLDER_OBJECT = pa.struct([each for each in OBJECT if each.name != "method_agreement"])
COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "status": pa.string(),  # ok, or failed: then there is no mask
    "reason": pa.string(),
    "kept": pa.bool_(),  # by the quality rule; a row that is not kept is still there
    "dropped": pa.string(),  # why
    "uri": pa.string(),  # of the picture, from the folder of the pictures
    "sha256": pa.string(),  # of the picture's bytes
    "image": IMAGE,  # null but where the pictures are inside
    "mask": IMAGE,  # 0 background, 255 undecided, else a class
    "labels": pa.list_(pa.int64()),  # image-level
    "split": pa.string(),
    "height": pa.int64(),
    "width": pa.int64(),
    "objects": pa.list_(OBJECT),
}


@cache
def frame_schema() -> pa.Schema:
    return schema_for_hugging_face(COLUMNS, {})


def schema_for_hugging_face(columns: Mapping[str, pa.DataType], features: Mapping[str, Json]) -> pa.Schema:
    """Of Parquet that Hugging Face's datasets read; `features` are those that a column's type does not tell."""
    told = {name: features.get(name) or _feature(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": told}})})


def provenance(artifacts: Sequence[Artifact], whole_paths: bool = False) -> list[dict[str, Json]]:
    """Everything that artifacts were made from, themselves first: stage, configuration, versions, how they hang
    together. What has gone or was changed since is a digest alone. Unless whole paths are asked for, configurations are
    `shareable`."""
    found: dict[str, dict[str, Json]] = {}
    for artifact in artifacts:
        _collect(artifact, found, whole_paths)
    return list(found.values())


def _collect(artifact: Artifact, found: dict[str, dict[str, Json]], whole_paths: bool) -> None:
    plan = artifact.plan
    found[artifact.digest] = {
        "digest": artifact.digest,
        "stage": plan.stage,
        "kind": plan.kind,
        "code_version": plan.code_version,
        "fingerprint": plan.fingerprint,
        "config": dict(plan.config) if whole_paths else shareable(plan.config),
        "device": plan.device,
        "libraries": dict(plan.libraries),
        "inputs": {each.role: each.digest for each in plan.inputs},
        "warnings": list(artifact.summary.warnings),
    }
    for each in plan.inputs:
        if "stage" in found.setdefault(each.digest, {"digest": each.digest}):
            continue
        try:
            above = open_artifact(each.place(artifact.place))
        except (MissingArtifact, UnfinishedArtifact, StaleArtifact, CorruptArtifact):
            continue
        if above.digest == each.digest:
            _collect(above, found, whole_paths)


def shareable(value: Json) -> Json:
    """Of absolute paths the last part stays: the others say something about their maker alone."""
    if isinstance(value, Mapping):
        return {name: shareable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shareable(each) for each in value]
    return value.rstrip("/").rpartition("/")[2] if isinstance(value, str) and value.startswith("/") else value


def _feature(kind: pa.DataType) -> Json:
    """A column as Hugging Face's datasets write it down."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {kind.field(index).name: _feature(kind.field(index).type) for index in range(kind.num_fields)}
    names: Mapping[pa.DataType, str] = {pa.bool_(): "bool", pa.int64(): "int64", pa.float64(): "float64"}
    return {"dtype": names.get(kind, "string"), "_type": "Value"}


def class_names(classes: ClassTable) -> dict[int, str]:
    """Index → name, the one class of a dataset that names none included."""
    return classes.names or {1: "object"}


def ground_truth_ids(dataset: Artifact) -> frozenset[str]:
    """The pictures whose masks are their ground truth, as was planned: of a row without classes, no class says it."""
    rows = (row for batch in listing_batches(dataset.place, dataset.plan) for row in batch.to_pylist())
    return frozenset(row["id"] for row in rows if row["is_truth"])


def class_indices(named: Sequence[str], table: ClassTable, whose: str) -> list[int]:
    """The indices of classes given by name or number; `whose` table it is, for the sentence that refuses one."""
    names = table.names
    by_name = {**{str(index): index for index in names}, **{name: index for index, name in names.items()}}
    for name in named:
        if name not in by_name:
            near = difflib.get_close_matches(name, list(names.values()), n=1)
            meant = f"did you mean {near[0]}?" if near else "give names or numbers of its class table"
            raise ConfigError(f"classes names {name!r}, which {whose} do not have; {meant}")
    return sorted({by_name[name] for name in named})


def read_id_list(uri: str) -> list[str]:
    """The image ids of a text file that a user wrote, one in each line."""
    with open_user_file(uri, "list of ids") as opened:
        stream: Any = opened
        try:
            lines = stream.read().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{uri} is no text in UTF-8 ({error.reason}); give a file of one id per line") from error
    ids = [unicodedata.normalize("NFC", line) for line in lines if line.strip()]
    if not ids:
        raise InputError(f"{uri} names no id; write one per line")
    return ids
