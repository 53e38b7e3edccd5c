"""The status of an artifact from its files: progress, failures and inputs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...manifests.artifact import ledger
from ...manifests.artifact.artifact import ARTIFACT, open_artifact, read_summary
from ...manifests.artifact.plan import Input, Plan, missing_units, read_plan
from ...manifests.errors import MaskmillError
from ...manifests.files import lock
from ...manifests.files.place import Place, place


@dataclass(frozen=True, slots=True)
class RunStatus:
    at: str
    kind: str
    stage: str
    state: str  # finished, running, unfinished
    rows: int
    units: int
    units_done: int
    counts: Mapping[str, Any]  # of the rows done; for an artifact without rows, the facts of its stage
    warnings: tuple[str, ...]
    fingerprint: str
    config: Mapping[str, Any]
    inputs: tuple[Mapping[str, str], ...]  # role, uri and state: whether it is still what was read


@dataclass(frozen=True, slots=True)
class FailedRow:
    id: str
    status: str
    reason: str


def status(uri: str) -> RunStatus:
    at = place(uri)
    plan = read_plan(at)
    summary = read_summary(at)
    units = sum(plan.layout(group).num_units for group in plan.groups)
    missing = 0 if summary else sum(len(missing_units(at, plan, group)) for group in plan.groups)
    return RunStatus(
        at=at.uri,
        kind=plan.kind,
        stage=plan.stage,
        state="finished" if summary else "running" if lock.is_held(at) else "unfinished",
        rows=plan.num_rows,
        units=units,
        units_done=units - missing,
        counts=summary.counts if summary else _counts_so_far(at, plan),
        warnings=summary.warnings if summary else (),
        fingerprint=plan.fingerprint,
        config=plan.config,
        inputs=tuple(_input_state(at, read) for read in plan.inputs),
    )


def list_failed_rows(uri: str) -> Iterator[FailedRow]:
    """Rows that are not ok, in order; for an unfinished artifact those known so far."""
    at = place(uri)
    plan = read_plan(at)
    if plan.groups and at.exists(ARTIFACT):
        for batch in open_artifact(at).row_batches(["id", "status", "reason"]):
            yield from _not_ok(batch.to_pydict())
        return
    for group in plan.groups:
        for record in ledger.records(at, group.ledger, plan.layout(group).num_units):
            if record is not None:
                yield from _not_ok(record.rows)


def _not_ok(rows: Mapping[str, list[Any]]) -> Iterator[FailedRow]:
    for identifier, state, reason in zip(rows["id"], rows["status"], rows["reason"], strict=True):
        if state != "ok":
            yield FailedRow(identifier, state, reason)


def _counts_so_far(at: Place, plan: Plan) -> dict[str, Any]:
    if not plan.groups:
        return {}
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    group = plan.groups[0]
    for record in ledger.records(at, group.ledger, plan.layout(group).num_units):
        if record is not None:
            states.update(record.rows["status"])
            reasons.update(
                r for r, s in zip(record.rows["reason"], record.rows["status"], strict=True) if s == "failed"
            )
    return {
        "rows": states.total(),
        **{name: states[name] for name in ("ok", "failed", "upstream")},
        "reasons": dict(sorted(reasons.items())),
    }


def _input_state(at: Place, read: Input) -> dict[str, str]:
    where = read.place(at)
    try:
        is_same = open_artifact(where).digest == read.digest
    except MaskmillError as error:
        return {"role": read.role, "uri": where.uri, "state": type(error).__name__}
    return {"role": read.role, "uri": where.uri, "state": "as read" if is_same else "changed since"}
