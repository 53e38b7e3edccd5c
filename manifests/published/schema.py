"""The schema of the published dataset, and its metadata for readers outside this package.

The Parquet files can be read without this package: `mask` (a palette PNG) and `image` (null unless pictures are
embedded) are image columns as in Hugging Face's datasets.
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
# One class in one picture. Measures are null if there are no pixels or no map to measure.
OBJECT = pa.struct(
    [
        ("class", pa.int64()),
        ("name", pa.string()),
        ("source", pa.string()),  # gt; pseudo; enhanced: pseudo, from maps improved with a few masks
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
        ("method_agreement", pa.float64()),  # missing in older datasets
    ]
)
OLDER_OBJECT = pa.struct([field for field in OBJECT if field.name != "method_agreement"])
COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "status": pa.string(),  # ok or failed; a failed row has no mask
    "reason": pa.string(),
    "kept": pa.bool_(),  # by the quality rule; dropped rows stay in the files
    "dropped": pa.string(),  # why not kept
    "uri": pa.string(),  # of the picture, relative to the folder of the pictures
    "sha256": pa.string(),  # of the picture's bytes
    "image": IMAGE,  # null unless pictures are embedded
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
    """A Parquet schema for Hugging Face's datasets; `features` override those derived from column types."""
    declared = {name: features.get(name) or _feature(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": declared}})})


def provenance(artifacts: Sequence[Artifact], whole_paths: bool = False) -> list[dict[str, Json]]:
    """The artifacts and everything they were made from: stage, config, versions, inputs. An input that is gone or
    changed is only a digest. Configs are `shareable` unless `whole_paths`."""
    steps: dict[str, dict[str, Json]] = {}
    for artifact in artifacts:
        _collect(artifact, steps, whole_paths)
    return list(steps.values())


def _collect(artifact: Artifact, steps: dict[str, dict[str, Json]], whole_paths: bool) -> None:
    plan = artifact.plan
    steps[artifact.digest] = {
        "digest": artifact.digest,
        "stage": plan.stage,
        "kind": plan.kind,
        "code_version": plan.code_version,
        "fingerprint": plan.fingerprint,
        "config": dict(plan.config) if whole_paths else shareable(plan.config),
        "device": plan.device,
        "libraries": dict(plan.libraries),
        "inputs": {entry.role: entry.digest for entry in plan.inputs},
        "warnings": list(artifact.summary.warnings),
    }
    for entry in plan.inputs:
        if "stage" in steps.setdefault(entry.digest, {"digest": entry.digest}):
            continue
        try:
            above = open_artifact(entry.place(artifact.place))
        except (MissingArtifact, UnfinishedArtifact, StaleArtifact, CorruptArtifact):
            continue
        if above.digest == entry.digest:
            _collect(above, steps, whole_paths)


def shareable(value: Json) -> Json:
    """The value with absolute paths cut to their last part: the rest says only where its maker keeps files."""
    if isinstance(value, Mapping):
        return {name: shareable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shareable(item) for item in value]
    return value.rstrip("/").rpartition("/")[2] if isinstance(value, str) and value.startswith("/") else value


def _feature(kind: pa.DataType) -> Json:
    """A column type as a feature of Hugging Face's datasets."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {kind.field(index).name: _feature(kind.field(index).type) for index in range(kind.num_fields)}
    names: Mapping[pa.DataType, str] = {pa.bool_(): "bool", pa.int64(): "int64", pa.float64(): "float64"}
    return {"dtype": names.get(kind, "string"), "_type": "Value"}


def class_names(classes: ClassTable) -> dict[int, str]:
    """Index → name; {1: "object"} for a dataset without class names."""
    return classes.names or {1: "object"}


def ground_truth_ids(dataset: Artifact) -> frozenset[str]:
    """Ids whose masks are ground truth, from the plan: a row without classes does not say so itself."""
    rows = (row for batch in listing_batches(dataset.place, dataset.plan) for row in batch.to_pylist())
    return frozenset(row["id"] for row in rows if row["is_truth"])


def class_indices(named: Sequence[str], table: ClassTable, whose: str) -> list[int]:
    """Class numbers of names or numbers; `whose` names the owner of the table in error messages."""
    names = table.names
    by_name = {**{str(index): index for index in names}, **{name: index for index, name in names.items()}}
    for name in named:
        if name not in by_name:
            near = difflib.get_close_matches(name, list(names.values()), n=1)
            meant = f"did you mean {near[0]}?" if near else "give names or numbers of its class table"
            raise ConfigError(f"classes names {name!r}, which {whose} do not have; {meant}")
    return sorted({by_name[name] for name in named})


def read_id_list(uri: str) -> list[str]:
    """The image ids of a user's text file, one per line."""
    with open_user_file(uri, "list of ids") as opened:
        stream: Any = opened
        try:
            lines = stream.read().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{uri} is not a text file in UTF-8 ({error.reason}); give a file of one id per line"
            ) from error
    ids = [unicodedata.normalize("NFC", line) for line in lines if line.strip()]
    if not ids:
        raise InputError(f"{uri} lists no ids; write one per line")
    return ids
