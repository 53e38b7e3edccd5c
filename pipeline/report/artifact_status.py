"""One artifact as a step of the report: how far it is, what it cost, what failed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.errors import MaskmillError
from ...manifests.files.place import Place
from ..answers.status import FailedRow, RunStatus, list_failed_rows, status

NAMED = 20  # ids that are given of each reason


@dataclass(frozen=True, slots=True)
class Failures:
    status: str  # failed, or upstream
    reason: str
    count: int
    ids: Sequence[str]  # the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactStatus:
    at: Place
    status: RunStatus | None = None
    artifact: Artifact | None = None  # of one that is finished and whole
    fault: str = ""  # why no more is known
    seconds: float | None = None  # that its processes were at work; None where no log tells
    files: int = 0
    num_bytes: int = 0
    failures: Sequence[Failures] = field(default_factory=tuple)

    @property
    def stage(self) -> str:
        return self.status.stage if self.status else self.at.uri.rpartition("/")[2]

    @property
    def is_stale(self) -> bool:
        return self.status is not None and any(each["state"] != "as read" for each in self.status.inputs)


def read_status(at: Place) -> ArtifactStatus:
    """From files alone; what is damaged is said, and the rest told all the same."""
    files, num_bytes = _size(at)
    try:
        found = status(at.uri)
    except MaskmillError as error:
        return ArtifactStatus(at=at, fault=str(error), files=files, num_bytes=num_bytes)
    artifact, fault = None, ""
    failures: Sequence[Failures] = ()
    try:
        artifact = open_artifact(at) if found.state == "finished" else None
        failures = _by_reason(list_failed_rows(at.uri))
    except MaskmillError as error:
        artifact, fault = None, str(error)
    return ArtifactStatus(
        at=at,
        status=found,
        artifact=artifact,
        fault=fault,
        seconds=_seconds(at),
        files=files,
        num_bytes=num_bytes,
        failures=failures,
    )


def log_lines(at: Place) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every line of the logs of an artifact with the log that it is of; a torn one is left out."""
    for name in at.names("log"):
        for line in at.read(name).splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("time"), int | float):
                yield name, event


def _size(at: Place) -> tuple[int, int]:
    sizes = [found.size for name in at.names() if (found := at.stat(name)) is not None]
    return len(sizes), sum(sizes)


def _by_reason(rows: Iterable[FailedRow]) -> list[Failures]:
    counts: dict[tuple[str, str], int] = {}
    ids: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = row.status, row.reason
        counts[key] = counts.get(key, 0) + 1
        some = ids.setdefault(key, [])
        if len(some) < NAMED:
            some.append(row.id)
    return [Failures(*key, counts[key], ids[key]) for key in sorted(counts, key=lambda key: (-counts[key], key))]


def _seconds(at: Place) -> float | None:
    """How long at least one process was at work: from its first unit's beginning to its last line."""
    spans: dict[str, tuple[float, float]] = {}
    for name, event in log_lines(at):
        end = _number(event, "time")
        begin = end - sum(_number(event, part) for part in ("reading_s", "computing_s", "writing_s", "seconds"))
        first, last = spans.get(name, (begin, end))
        spans[name] = min(first, begin), max(last, end)
    return _union(sorted(spans.values())) if spans else None


def _number(event: Mapping[str, object], name: str) -> float:
    value = event.get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """The length of what intervals in order of their beginning cover together."""
    total, reached = 0.0, spans[0][0]
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
