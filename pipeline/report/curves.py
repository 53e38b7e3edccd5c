"""Training curves: the metric lines of checkpoints, or the log of a training that is not finished."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .artifact_status import ArtifactStatus, log_lines

METRICS = "metrics.jsonl"
POINTS = 300  # drawn per curve


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]  # step and value; means if several steps share a point
    low: float
    high: float
    last: float
    steps: int

    def polyline(self, width: int, height: int) -> str:
        """The points in SVG coordinates, where y points down."""
        first = self.points[0][0]
        wide, high = (self.points[-1][0] - first) or 1.0, (self.high - self.low) or 1.0
        places = (((x - first) / wide * width, height - (y - self.low) / high * height) for x, y in self.points)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


@dataclass(frozen=True, slots=True)
class Training:
    at: str
    stage: str
    is_over: bool
    curves: Sequence[Curve]


def trainings(steps: Iterable[ArtifactStatus]) -> Iterator[Training]:
    for step in steps:
        if step.status is None or step.status.kind != "checkpoint":
            continue
        curves = _curves(_lines(step))
        if curves:
            yield Training(step.at.uri, step.stage, step.artifact is not None, curves)


def _lines(step: ArtifactStatus) -> Iterator[Mapping[str, object]]:
    if step.artifact is None:
        yield from (event for _, event in log_lines(step.at) if event.get("event") == "step")
        return
    if METRICS not in step.artifact.fingerprints:
        return
    for line in step.artifact.file(METRICS).decode().splitlines():
        yield json.loads(line)


def _curves(lines: Iterable[Mapping[str, object]]) -> list[Curve]:
    values: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        step = line.get("step")
        for name, value in line.items():
            if name not in ("step", "time", "pid") and _is_number(step) and _is_number(value):
                values.setdefault(name, []).append((float(step), float(value)))  # type: ignore[arg-type]
    return [_curve(name, points) for name, points in values.items()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    together = -(-len(points) // POINTS)
    drawn = [_mean(points[start : start + together]) for start in range(0, len(points), together)]
    heights = [y for _, y in drawn]
    return Curve(name, drawn, min(heights), max(heights), points[-1][1], int(points[-1][0]) + 1)


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
