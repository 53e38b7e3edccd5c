"""Publishes the dataset: label maps with their sources, quality measures and provenance."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import training_ids
from ...manifests.artifact.facts import DatasetFacts, LabelsFacts, class_table
from ...manifests.artifact.fields import Field
from ...manifests.classes import refuse_other_class_table
from ...manifests.counts import count_of
from ...manifests.errors import InputError, Reason, StaleArtifact
from ...manifests.files.sealed import Json
from ...manifests.published.schema import FRAME, frame_schema, provenance
from ..stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from .config import MANIFEST, ManifestConfig
from .croissant import croissant_json
from .published_rows import dataset_rows, failure_row

LISTED: Mapping[str, str] = {"id": "string", "maps": "ints", "compared": "ints", "is_truth": "bool"}
ROW_BYTES = 300  # of a row without its mask and its picture
SAMPLE = 32  # label maps read to estimate their size
FILE_BYTES = 128 * 2**20


def plan(config: ManifestConfig, inputs: Inputs, known: Known) -> RowList:
    labels, maps = inputs["labels"], inputs["maps"]
    _refuse_other_maps(labels, maps)
    if "compared" in inputs:
        _refuse_nothing_to_compare(labels, inputs["compared"])
    truth = _ground_truth_ids(config, inputs)
    labels_facts = LabelsFacts.of(labels)
    facts = DatasetFacts(
        classes=labels_facts.classes,
        weights=labels_facts.weights,
        backbone=labels_facts.backbone,
        provenance=tuple(provenance(list(inputs.values()))),
        title=config.title or "pseudo-masks",
        licence=config.licence,
    )
    return RowList(LISTED, _row_batches(labels, maps, inputs.get("compared"), truth), facts.as_json())


def fields(config: ManifestConfig, inputs: Inputs) -> Sequence[Field]:
    row_bytes = ROW_BYTES + _label_bytes(inputs["labels"])
    if config.embed_images:
        sizes = [size or 0 for batch in inputs["images"].row_batches(["bytes"]) for size in batch[0].to_pylist()]
        row_bytes += sum(sizes) // max(1, len(sizes))
    return [Field(name=FRAME, kind="frame", row_bytes=row_bytes)]


def columns(config: ManifestConfig) -> Mapping[str, str]:
    return {"kept": "bool", "dropped": "string", "classes": "ints", "sources": "strings"}


def reads(config: ManifestConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    may_have_truth = (config.ground_truth or "seen" in inputs) and "mask" in inputs["images"].plan.fields
    return {
        "labels": ("label", "found"),
        "maps": ("map", "cut"),
        "images": ("picture", "labels", *(("mask",) if may_have_truth else ())),
        **({"compared": ("label",)} if "compared" in inputs else {}),
    }


def run_unit(work: Work, config: ManifestConfig, prepared: Any) -> UnitResult:
    published = list(dataset_rows(work, config.min_score, config.embed_images))
    results = []
    for row, blocked in zip(published, work.blocked, strict=True):
        scalars: dict[str, Json] = {
            "kept": row["kept"],
            "dropped": row["dropped"],
            "classes": [entry["class"] for entry in row["objects"]],
            "sources": [entry["source"] for entry in row["objects"]],
        }
        has_failed = row["status"] != "ok" and not blocked
        results.append(RowResult(scalars, reason=Reason(row["reason"]) if has_failed else None))
    return UnitResult(results, frames={FRAME: pa.Table.from_pylist(published, frame_schema())})


def blank(ids: Sequence[str]) -> pa.Table:
    """The rows of an abandoned unit."""
    rows = [failure_row({"id": identifier}, str(Reason.ERROR)) for identifier in ids]
    return pa.Table.from_pylist(rows, frame_schema())


def _refuse_other_maps(labels: Artifact, maps: Artifact) -> None:
    if labels.plan.input("maps").digest != maps.digest:
        raise StaleArtifact(
            f"{labels.place} was made from other maps than {maps.place} now holds; run `maskmill refine` again, or "
            "pass as --maps the maps that it was made from"
        )


def _refuse_nothing_to_compare(labels: Artifact, other: Artifact) -> None:
    if other.digest == labels.digest:
        raise InputError(
            f"{other.place} cannot be compared with itself; pass as --compare-with labels of another method"
        )
    remedy = "pass as --compare-with labels of the same class table"
    refuse_other_class_table(class_table(labels), class_table(other), (labels.place, other.place), remedy)
    if _ids(labels).isdisjoint(_ids(other)):
        raise InputError(
            f"{other.place} has no picture of {labels.place}; pass as --compare-with labels of the same pictures"
        )


def _ground_truth_ids(config: ManifestConfig, inputs: Inputs) -> frozenset[str]:
    """The ids that the user named as ground truth; all of them must have a mask."""
    labels, images = inputs["labels"], inputs["images"]
    named, seen = frozenset(config.ground_truth), frozenset[str]()
    if "seen" in inputs:
        seen = training_ids(inputs["seen"], "masks")
        if not seen:
            raise InputError(f"{inputs['seen'].place} was not trained on masks; leave it out of --ground-truth")
    if not named | seen:
        return frozenset()
    truth = (named | seen) & _ids(labels)
    if unknown := sorted(named - truth):
        raise InputError(
            f"{count_of(len(unknown), 'id named as ground truth is', 'ids named as ground truth are')} not in "
            f"{labels.place}, the first is {unknown[0]!r}; correct the list (an id is a picture's path without its "
            "extension)"
        )
    if missing := sorted(truth - _ids_with_masks(images)):
        raise InputError(
            f"{count_of(len(missing), 'id named as ground truth has', 'ids named as ground truth have')} no mask in "
            f"{images.place}, the first is {missing[0]!r}; leave them out, or index the pictures with their masks "
            "and pass the index as --images"
        )
    return truth


def _ids(artifact: Artifact) -> frozenset[str]:
    return frozenset(chain.from_iterable(batch.column("id").to_pylist() for batch in artifact.row_batches(["id"])))


def _ids_with_masks(images: Artifact) -> frozenset[str]:
    if "mask" not in images.plan.fields:
        return frozenset()
    rows = (row for batch in images.row_batches(["id", "mask_sha256"]) for row in batch.to_pylist())
    return frozenset(row["id"] for row in rows if row["mask_sha256"])


def _label_bytes(labels: Artifact) -> int:
    """The mean size of a label map, from an evenly spaced sample."""
    num_rows = labels.plan.num_rows
    cells = labels.cells("label", range(0, num_rows, -(-num_rows // SAMPLE)))
    sizes = [len(cell) for cell in cells if cell is not None]
    return sum(sizes) // max(1, len(sizes))


def _row_batches(
    labels: Artifact, maps: Artifact, other: Artifact | None, truth: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    """Failed rows of the other labels are left out, because they do not fail here."""
    positions, others = maps.positions_by_id(), {} if other is None else _ok_positions(other)
    schema = tables.schema_of(LISTED)
    for batch in labels.row_batches(["id"]):
        ids = batch.column("id").to_pylist()
        columns = {
            "id": ids,
            "maps": [positions.get(identifier, []) for identifier in ids],
            "compared": [others.get(identifier, []) for identifier in ids],
            "is_truth": [identifier in truth for identifier in ids],
        }
        yield pa.RecordBatch.from_pydict(columns, schema)


def _ok_positions(artifact: Artifact) -> dict[str, list[int]]:
    failures = artifact.failures()
    return {
        identifier: positions
        for identifier, positions in artifact.positions_by_id().items()
        if failures.keys().isdisjoint(positions)
    }


STAGE = Stage(
    command=MANIFEST,
    code_version=2,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    run_unit=run_unit,
    gathers={"maps": "maps", "compared": "compared"},
    blank=blank,
    describe=croissant_json,
    libraries=("numpy", "scipy"),
    max_unit_rows=65_536,
    max_unit_bytes=FILE_BYTES,
)
