"""One artifact as a step of the report: progress, cost and failures."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.errors import MaskmillError
from ...manifests.files.place import Place
from ..answers.status import FailedRow, RunStatus, list_failed_rows, status

NAMED = 20  # ids listed for each reason


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
    artifact: Artifact | None = None  # if it is finished and intact
    fault: str = ""  # why it cannot be read
    seconds: float | None = None  # time during which its processes worked; None without a log
    files: int = 0
    num_bytes: int = 0
    failures: Sequence[Failures] = field(default_factory=tuple)

    @property
    def stage(self) -> str:
        return self.status.stage if self.status else self.at.uri.rpartition("/")[2]

    @property
    def is_stale(self) -> bool:
        return self.status is not None and any(read["state"] != "as read" for read in self.status.inputs)


def read_status(at: Place) -> ArtifactStatus:
    """Reads files only. A damaged part is reported, and the rest is still read."""
    files, num_bytes = _size(at)
    try:
        run_status = status(at.uri)
    except MaskmillError as error:
        return ArtifactStatus(at=at, fault=str(error), files=files, num_bytes=num_bytes)
    artifact, fault = None, ""
    failures: Sequence[Failures] = ()
    try:
        artifact = open_artifact(at) if run_status.state == "finished" else None
        failures = _by_reason(list_failed_rows(at.uri))
    except MaskmillError as error:
        artifact, fault = None, str(error)
    return ArtifactStatus(
        at=at,
        status=run_status,
        artifact=artifact,
        fault=fault,
        seconds=_seconds(at),
        files=files,
        num_bytes=num_bytes,
        failures=failures,
    )


def log_lines(at: Place) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every line of an artifact's logs, with the name of its log. Skips incomplete lines."""
    for name in at.names("log"):
        for line in at.read(name).splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("time"), int | float):
                yield name, event


def _size(at: Place) -> tuple[int, int]:
    sizes = [stat.size for name in at.names() if (stat := at.stat(name)) is not None]
    return len(sizes), sum(sizes)


def _by_reason(rows: Iterable[FailedRow]) -> list[Failures]:
    counts: dict[tuple[str, str], int] = {}
    ids: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = row.status, row.reason
        counts[key] = counts.get(key, 0) + 1
        listed = ids.setdefault(key, [])
        if len(listed) < NAMED:
            listed.append(row.id)
    return [Failures(*key, counts[key], ids[key]) for key in sorted(counts, key=lambda key: (-counts[key], key))]


def _seconds(at: Place) -> float | None:
    """How long at least one process worked, each from the start of its first unit to its last log line."""
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
    """The total length covered by intervals sorted by their start."""
    total, reached = 0.0, spans[0][0]
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
