"""What masks are worth against ground truth, as metrics artifacts and enhancers have it stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import CorruptArtifact
from ...manifests.files.sealed import Json

MEASURES: Mapping[str, str] = {"miou": "mIoU", "miou_foreground": "mIoU without background", "boundary_f": "boundary F"}


@dataclass(frozen=True, slots=True)
class MetricsScores:
    """One metrics artifact."""

    at: str
    judged: str  # the stage whose result was judged
    measures: Sequence[str]  # that its lines have
    lines: Sequence[Mapping[str, Json]]  # as stored: the masks first, the floors last
    coverage: Mapping[str, int]
    best_threshold: Mapping[str, float] | None
    left_out: str
    ious: Mapping[int, Mapping[str, Json]]  # of the masks: class → iou, precision, recall, boundary_f
    floors: Mapping[int, float]  # class → the IoU of the best guess that looks at no picture
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class EnhancerGain:
    """What an enhancer does on pictures that it has not seen."""

    at: str
    pictures: int
    intervals: Mapping[str, Mapping[str, Json]]  # before, after, difference


def scores_of(metrics: Artifact, judged: str) -> MetricsScores:
    try:
        found = json.loads(metrics.file("metrics.json"))
        table = pq.read_table(pa.BufferReader(metrics.file("classes.parquet"))).to_pylist()
        lines = found["results"]
        classes = [row for row in table if row["result"] == lines[0]["name"]]
        return MetricsScores(
            at=metrics.place.uri,
            judged=judged or str(found["judged"]),
            measures=[name for name in MEASURES if name in lines[0]],
            lines=lines,
            coverage=found["coverage"],
            best_threshold=(found.get("threshold_sweep") or {}).get("best"),
            left_out=found["rows_left_out"],
            ious={row["class"]: row for row in classes},
            floors=_floors(table),
            names={row["class"]: row["name"] for row in table},
        )
    except (KeyError, ValueError, IndexError, TypeError, pa.ArrowException) as error:
        raise CorruptArtifact(f"{metrics.place} holds no metrics ({error!r}); evaluate again") from error


def is_floor(line: str) -> bool:
    """Of the lines of an evaluation, those that are no masks."""
    return not line.startswith(("all rows", "kept rows"))


def _floors(table: Sequence[Mapping[str, Json]]) -> dict[int, float]:
    found: dict[int, float] = {}
    for row in table:
        if is_floor(row["result"]) and row["iou"] is not None:
            found[row["class"]] = max(row["iou"], found.get(row["class"], 0.0))
    return found


def gain_of(checkpoint: Artifact) -> EnhancerGain | None:
    """None of a checkpoint that is no enhancer, or was judged on no picture."""
    told = checkpoint.summary.counts.get("held_out")
    if not isinstance(told, dict) or not told.get("pictures"):
        return None
    intervals = {name: told[name] for name in ("before", "after", "difference") if name in told}
    return EnhancerGain(checkpoint.place.uri, int(told["pictures"]), intervals)
