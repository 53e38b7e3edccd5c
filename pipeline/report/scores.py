"""Scores on ground truth, from metrics artifacts and enhancer checkpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import CorruptArtifact
from ...manifests.files.sealed import Json
from ...stages.scores.verdict import NO_OBJECTS, find_floor

MEASURES: Mapping[str, str] = {
    "miou": "mIoU",
    "miou_foreground": "mIoU without background",
    "miou_truth_classes": "mIoU over classes in truth",
    "boundary_f": "boundary F",
}


@dataclass(frozen=True, slots=True)
class MetricsScores:
    at: str
    judged: str  # the stage whose result was scored
    measures: Sequence[str]  # that the lines have
    lines: Sequence[Mapping[str, Json]]  # as stored: masks first, floors last
    coverage: Mapping[str, int]
    best_threshold: Mapping[str, float] | None
    left_out: str
    ious: Mapping[int, Mapping[str, Json]]  # class → iou, precision, recall, boundary_f of the masks
    floors: Mapping[int, float]  # class → IoU of the best floor
    names: Mapping[int, str]

    @property
    def pictures(self) -> int:
        return int(self.lines[0]["pictures"])

    @property
    def floor(self) -> tuple[str, float] | None:
        """The floor that the masks are at, if they are."""
        floors = {line["name"]: line["miou"] for line in self.lines if is_floor(line["name"])}
        return find_floor(self.lines[0]["miou"], floors, self.pictures)


@dataclass(frozen=True, slots=True)
class StudentScores:
    at: str
    pictures: int  # that it did not learn from
    lines: Sequence[Mapping[str, Json]]  # as stored: the student first

    @property
    def floor(self) -> tuple[str, float] | None:
        """The floor that the student is at, if it is. It is told no class, as the other lines are."""
        floors = {line["name"]: line["miou"] for line in self.lines if line["name"] == NO_OBJECTS}
        return find_floor(self.lines[0]["miou"], floors, self.pictures)


@dataclass(frozen=True, slots=True)
class EnhancerGain:
    at: str
    pictures: int
    intervals: Mapping[str, Mapping[str, Json]]  # before, after, difference


def scores_of(metrics: Artifact, judged: str) -> MetricsScores:
    try:
        stored = json.loads(metrics.file("metrics.json"))
        table = pq.read_table(pa.BufferReader(metrics.file("classes.parquet"))).to_pylist()
        lines = stored["results"]
        classes = [row for row in table if row["result"] == lines[0]["name"]]
        return MetricsScores(
            at=metrics.place.uri,
            judged=judged or str(stored["judged"]),
            measures=[name for name in MEASURES if name in lines[0]],
            lines=lines,
            coverage=stored["coverage"],
            best_threshold=(stored.get("threshold_sweep") or {}).get("best"),
            left_out=stored["rows_left_out"],
            ious={row["class"]: row for row in classes},
            floors=_floors(table),
            names={row["class"]: row["name"] for row in table},
        )
    except (KeyError, ValueError, IndexError, TypeError, pa.ArrowException) as error:
        raise CorruptArtifact(
            f"{metrics.place} has no valid metrics ({error!r}); delete it and evaluate again"
        ) from error


def is_floor(line: str) -> bool:
    """Whether a line of an evaluation is a floor, not masks."""
    return not line.startswith(("all rows", "kept rows"))


def _floors(table: Sequence[Mapping[str, Json]]) -> dict[int, float]:
    best: dict[int, float] = {}
    for row in table:
        if is_floor(row["result"]) and row["iou"] is not None:
            best[row["class"]] = max(row["iou"], best.get(row["class"], 0.0))
    return best


def student_scores_of(checkpoint: Artifact) -> StudentScores | None:
    """None if the checkpoint is not a student that was scored while it was trained."""
    judged = checkpoint.summary.counts.get("judged")
    if not isinstance(judged, dict) or not judged.get("lines"):
        return None
    return StudentScores(checkpoint.place.uri, int(judged["pictures"]), judged["lines"])


def gain_of(checkpoint: Artifact) -> EnhancerGain | None:
    """None if the checkpoint is not an enhancer, or was scored on no pictures."""
    held_out = checkpoint.summary.counts.get("held_out")
    if not isinstance(held_out, dict) or not held_out.get("pictures"):
        return None
    intervals = {name: held_out[name] for name in ("before", "after", "difference") if name in held_out}
    return EnhancerGain(checkpoint.place.uri, int(held_out["pictures"]), intervals)
