"""The facts about each picture from the row lists: state, classes and no-reference scores."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ...manifests.artifact.artifact import Artifact
from ...manifests.classes import BACKGROUND
from ...manifests.files.sealed import Json
from ...manifests.published.frames import frame_rows
from ...manifests.published.schema import OBJECT

KINDS = ("dataset", "labels", "maps", "images")  # kinds with a row per picture, last step first
SEPARATION = "separation"
# Not measures of quality.
_NO_MEASURES = ("class", "name", "source")
_MEASURES: Mapping[str, Sequence[str]] = {
    "dataset": (SEPARATION, *(each.name for each in OBJECT if each.name not in _NO_MEASURES)),
    "labels": ("score", "area"),
    "maps": ("foreground", "threshold"),
    "images": (),
}
MEANINGS: Mapping[str, str] = {
    SEPARATION: "mean of the soft map inside the label minus the mean outside",
    "score": "mean of the soft map over the label's pixels",
    "area": "share of the picture's pixels",
    "border_touch": "share of the picture's outermost pixels",
    "num_components": "number of pieces",
    "largest_share": "share of the area in the largest piece",
    "mean_inside": "mean of the soft map inside the label",
    "mean_outside": "mean of the soft map outside the label",
    "entropy_inside": "how unsure the soft map is inside the label, 0 to 1",
    "entropy_outside": "how unsure the soft map is outside the label, 0 to 1",
    "agreement": "IoU of the label before and after refining",
    "method_agreement": "IoU with another method's label",
    "foreground": "share of patches above the threshold",
    "threshold": "score at which the map is cut",
}
# Pictures are ranked by the first of these that the rows have. This project's own choice.
RANKED_BY = (SEPARATION, "score")


@dataclass(frozen=True, slots=True)
class Object:
    label: int | None  # None: unknown class
    source: str  # gt, pseudo, enhanced; "" if unknown
    measures: Mapping[str, float]  # without undefined ones

    @property
    def holds_something(self) -> bool:
        """Whether its mask has a pixel, or its map a patch above the threshold."""
        return self.measures.get("area", self.measures.get("foreground", 0.0)) > 0


@dataclass(frozen=True, slots=True)
class ReportRow:
    id: str
    position: int  # of its first row in the row list
    status: str  # kept, dropped, failed, upstream
    why: str = ""
    labels: Sequence[int] = ()  # image-level
    objects: Sequence[Object] = field(default_factory=tuple)

    @property
    def classes(self) -> list[int]:
        """The classes of its objects, else its image-level labels."""
        labels = [one.label for one in self.objects if one.label is not None]
        return sorted(set(labels or self.labels) - {BACKGROUND})

    def measure(self, name: str) -> float | None:
        values = [one.measures[name] for one in self.objects if name in one.measures]
        return sum(values) / len(values) if values else None


def measures_of(kind: str) -> Sequence[str]:
    return _MEASURES[kind]


def rows_of(artifact: Artifact) -> Iterator[ReportRow]:
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
        objects = [_object_of(values) for values in row["objects"] or ()]
        status = row["status"] if row["status"] != "ok" else "kept" if row["kept"] else "dropped"
        why = row["dropped"] if row["status"] == "ok" else row["reason"]
        yield ReportRow(row["id"], position, status, why or "", row["labels"] or (), objects)


def _object_of(values: Mapping[str, Json]) -> Object:
    inside, outside = values["mean_inside"], values["mean_outside"]
    separation = None if inside is None or outside is None else inside - outside
    known = {SEPARATION: separation, **{name: values.get(name) for name in _MEASURES["dataset"][1:]}}
    return Object(values["class"], values["source"], _finite_measures(known))


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
    """The rows of one picture follow each other."""
    columns = ["id", "status", "reason", "class", "foreground", "threshold"]
    rows = enumerate(_iterate_rows(artifact, columns))
    for identifier, group in groupby(rows, key=lambda numbered: numbered[1]["id"]):
        numbered_rows = list(group)
        failed = next((row for _, row in numbered_rows if row["status"] != "ok"), None)
        objects = [
            Object(row["class"], "", _finite_measures({name: row[name] for name in _MEASURES["maps"]}))
            for _, row in numbered_rows
            if row["status"] == "ok"
        ]
        yield ReportRow(identifier, numbered_rows[0][0], *_state(failed or numbered_rows[0][1]), (), objects)


def _of_images(artifact: Artifact) -> Iterator[ReportRow]:
    for position, row in enumerate(_iterate_rows(artifact, ["id", "status", "reason", "labels"])):
        yield ReportRow(row["id"], position, *_state(row), row["labels"] or ())


def _iterate_rows(artifact: Artifact, columns: Sequence[str]) -> Iterator[dict[str, Json]]:
    for batch in artifact.row_batches(columns):
        yield from batch.to_pylist()


def _state(row: Mapping[str, Json]) -> tuple[str, str]:
    return ("kept", "") if row["status"] == "ok" else (row["status"], row["reason"] or "")
