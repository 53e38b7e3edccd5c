"""What is known of each picture without looking at it: its state, its classes, and how good they look."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ...manifests.artifact.artifact import Artifact
from ...manifests.classes import BACKGROUND
from ...manifests.files.sealed import Json
from ...manifests.published.frames import frame_rows
from ...manifests.published.schema import OBJECT

KINDS = ("dataset", "labels", "maps", "images")  # that have a row for each picture, the furthest along first
SEPARATION = "separation"
# In the place of numbers that tell nothing of goodness: their rows are only counted.
_NO_MEASURES = ("class", "name", "source")
_MEASURES: Mapping[str, Sequence[str]] = {
    "dataset": (SEPARATION, *(each.name for each in OBJECT if each.name not in _NO_MEASURES)),
    "labels": ("score", "area"),
    "maps": ("foreground", "threshold"),
    "images": (),
}
MEANINGS: Mapping[str, str] = {
    SEPARATION: "mean of the soft map inside the label, less that outside",
    "score": "mean of the soft map over the label's pixels",
    "area": "share of the picture's pixels",
    "border_touch": "share of the picture's outermost pixels",
    "num_components": "pieces",
    "largest_share": "share of the area that the largest piece has",
    "mean_inside": "mean of the soft map inside the label",
    "mean_outside": "mean of the soft map outside the label",
    "entropy_inside": "how unsure the soft map is inside the label, 0 to 1",
    "entropy_outside": "how unsure the soft map is outside the label, 0 to 1",
    "agreement": "IoU of the label before and after refining",
    "method_agreement": "IoU with another method's label",
    "foreground": "share of patches above the threshold",
    "threshold": "where the map is cut",
}
# By which pictures are ranked without ground truth: the first of these that the rows have. This project's own choice.
RANKED_BY = (SEPARATION, "score")


@dataclass(frozen=True, slots=True)
class Object:
    """One class in one picture."""

    label: int | None  # None: whatever stands out
    source: str  # gt, pseudo, enhanced; "" where nothing tells
    measures: Mapping[str, float]  # without those that are not defined


@dataclass(frozen=True, slots=True)
class ReportRow:
    id: str
    position: int  # the first in the row list
    status: str  # kept, dropped, failed, upstream
    why: str = ""
    labels: Sequence[int] = ()  # image-level
    objects: Sequence[Object] = field(default_factory=tuple)

    @property
    def classes(self) -> list[int]:
        """What was found, or what is said to be there."""
        found = [each.label for each in self.objects if each.label is not None]
        return sorted(set(found or self.labels) - {BACKGROUND})

    def measure(self, name: str) -> float | None:
        """The mean over its classes."""
        values = [each.measures[name] for each in self.objects if name in each.measures]
        return sum(values) / len(values) if values else None


def measures_of(kind: str) -> Sequence[str]:
    return _MEASURES[kind]


def rows_of(artifact: Artifact) -> Iterator[ReportRow]:
    """Every picture of an artifact, in its order."""
    match artifact.plan.kind:
        case "dataset":
            return _of_dataset(artifact)
        case "labels":
            return _of_labels(artifact)
        case "maps":
            return _of_maps(artifact)
    return _of_images(artifact)


def _of_dataset(artifact: Artifact) -> Iterator[ReportRow]:
    columns = ["id", "status", "reason", "kept", "dropped", "labels", "objects"]
    for position, row in enumerate(frame_rows(artifact, columns)):
        objects = [_object_of(each) for each in row["objects"] or ()]
        status = row["status"] if row["status"] != "ok" else "kept" if row["kept"] else "dropped"
        why = row["dropped"] if row["status"] == "ok" else row["reason"]
        yield ReportRow(row["id"], position, status, why or "", row["labels"] or (), objects)


def _object_of(found: Mapping[str, Json]) -> Object:
    inside, outside = found["mean_inside"], found["mean_outside"]
    separation = None if inside is None or outside is None else inside - outside
    known = {SEPARATION: separation, **{name: found.get(name) for name in _MEASURES["dataset"][1:]}}
    return Object(found["class"], found["source"], _finite_measures(known))


def _finite_measures(measures: Mapping[str, Json]) -> dict[str, float]:
    return {name: float(value) for name, value in measures.items() if value is not None and math.isfinite(value)}


def _of_labels(artifact: Artifact) -> Iterator[ReportRow]:
    columns = ["id", "status", "reason", "classes", "areas", "scores", "height", "width"]
    for position, row in enumerate(_iterate_rows(artifact, columns)):
        pixels = (row["height"] or 0) * (row["width"] or 0)
        objects = [
            Object(label, "", _finite_measures({"score": score, "area": area / pixels}))
            for label, area, score in zip(row["classes"] or (), row["areas"] or (), row["scores"] or (), strict=True)
        ]
        yield ReportRow(row["id"], position, *_state(row), (), objects)


def _of_maps(artifact: Artifact) -> Iterator[ReportRow]:
    """Rows of a picture are planned together."""
    columns = ["id", "status", "reason", "class", "foreground", "threshold"]
    rows = enumerate(_iterate_rows(artifact, columns))
    for identifier, group in groupby(rows, key=lambda numbered: numbered[1]["id"]):
        some = list(group)
        failed = next((row for _, row in some if row["status"] != "ok"), None)
        objects = [
            Object(row["class"], "", _finite_measures({name: row[name] for name in _MEASURES["maps"]}))
            for _, row in some
            if row["status"] == "ok"
        ]
        yield ReportRow(identifier, some[0][0], *_state(failed or some[0][1]), (), objects)


def _of_images(artifact: Artifact) -> Iterator[ReportRow]:
    for position, row in enumerate(_iterate_rows(artifact, ["id", "status", "reason", "labels"])):
        yield ReportRow(row["id"], position, *_state(row), row["labels"] or ())


def _iterate_rows(artifact: Artifact, columns: Sequence[str]) -> Iterator[dict[str, Json]]:
    for batch in artifact.row_batches(columns):
        yield from batch.to_pylist()


def _state(row: Mapping[str, Json]) -> tuple[str, str]:
    return ("kept", "") if row["status"] == "ok" else (row["status"], row["reason"] or "")
