"""A stage without units, from a command to a finished artifact: its result is computed in one go.

Order of writing: plan.json, the files, artifact.json. An existing artifact counts as done if it was made with this
configuration from these inputs, and its files have the recorded digests. A long computation may save its state (see
`Underway`): then plan.json is written with the first saved state, and the same command resumes from the last.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...manifests.artifact.artifact import ARTIFACT, Artifact, Summary, open_artifact
from ...manifests.artifact.config import config_json, settings_json
from ...manifests.artifact.fingerprint import fingerprint
from ...manifests.artifact.plan import PLAN, Plan, read_plan, write_plan
from ...manifests.artifact.underway import Show, Underway, no_progress
from ...manifests.errors import MaskmillError, StaleArtifact, Terminated
from ...manifests.files import atomic, lock, sealed
from ...manifests.files.digests import FileDigest
from ...manifests.files.place import Place, place
from ...manifests.files.sealed import Json
from ...stages.stage import WholeStage
from .executors.attempts import close_log, log
from .finishing import valid_summary
from .job import make_reproducible
from .planning import header_of, input_digest, inputs_of, is_as_read, refuse_other_header
from .progress import LOGGER
from .run import Outcome, leave_nothing, refuse_strangers


def run_whole(
    stage: WholeStage,
    config: Any,
    inputs: Mapping[str, str],
    out: str,
    break_lock: bool = False,
    show: Show = no_progress,
) -> Outcome:
    began = time.monotonic()
    at = place(out)
    make_reproducible(stage, config)
    read = {role: open_artifact(uri, stage.command.role(role).kind) for role, uri in inputs.items()}
    header = header_of(stage, config, read)
    refuse_strangers(at)
    atomic.check_can_write(at)
    with lock.hold_lock(at, break_lock=break_lock):
        atomic.sweep_temporaries(at)
        plan = _plan(at, stage, config, read, header)
        existing = read_plan(at) if at.exists(PLAN) else None
        if existing is not None:
            refuse_other_header(at, existing, header)
        before = valid_summary(at) if existing is not None and not find_changed_inputs(existing, read) else None
        underway = Underway(at, partial(_begin, at, plan), partial(log, at), LOGGER.info, show)
        if existing is not None and before is None and find_changed_inputs(existing, read):
            _refuse_to_lose(at, stage, existing, read, underway)
            underway.clear()
        try:
            summary = before or _compute(at, stage, config, read, plan, underway)
            if before is None:
                log(at, {"event": "made", "seconds": time.monotonic() - began})
        except (MaskmillError, KeyboardInterrupt, Terminated):
            if existing is None and not underway.names():
                leave_nothing(at)
            raise
        finally:
            close_log(at)
        underway.clear()
    return Outcome(
        at=at,
        kind=stage.kind,
        rows=0,
        counts=summary.counts,
        units_run=0 if before else 1,
        units_skipped=1 if before else 0,
        warnings=summary.warnings,
        seconds=time.monotonic() - began,
        finished=True,
    )


def _plan(
    at: Place, stage: WholeStage, config: Any, inputs: Mapping[str, Artifact], header: Mapping[str, Json]
) -> Plan:
    return Plan(
        stage=stage.name,
        code_version=stage.code_version,
        kind=stage.kind,
        config=config_json(config),
        device=str(header["device"]),
        libraries=header["libraries"],
        fingerprint=fingerprint(header),
        inputs=tuple(
            replace(one, content=input_digest(inputs[one.role], one.fields)) for one in inputs_of(at, inputs, header)
        ),
        fields={},
        field_fingerprints={},
        columns={},
        groups=(),
        segments=(),
        revision=0,
        facts={},
        settings=settings_json(config),
    )


def _compute(
    at: Place, stage: WholeStage, config: Any, inputs: Mapping[str, Artifact], plan: Plan, underway: Underway
) -> Summary:
    """Computes before it changes anything but its saved state, so that a failure leaves the old artifact as it was."""
    result = stage.compute(config, inputs, underway)
    _begin(at, plan)
    atomic.remove(at, ARTIFACT)
    for name, data in result.files.items():
        atomic.write(at, name, data)
    summary = Summary(
        plan_sha256=FileDigest.of(at.read(PLAN)).sha256,
        fingerprint=plan.fingerprint,
        counts=dict(result.facts),
        warnings=tuple(result.warnings),
        files={name: FileDigest.of(data) for name, data in result.files.items()},
        ledgers={},
    )
    sealed.write(at, ARTIFACT, summary.as_json())
    return summary


def _begin(at: Place, plan: Plan) -> None:
    if not at.exists(PLAN) or read_plan(at) != plan:
        atomic.remove(at, ARTIFACT)
        write_plan(at, plan)


def find_changed_inputs(existing: Plan, inputs: Mapping[str, Artifact]) -> list[str]:
    """The roles whose artifact no longer has the content that was read. Its path and its other fields do not count."""
    before = {read.role: read for read in existing.inputs}
    return [
        role
        for role in {**before, **inputs}
        if role not in before or role not in inputs or not is_as_read(before[role], inputs[role])
    ]


def _refuse_to_lose(
    at: Place, stage: WholeStage, existing: Plan, inputs: Mapping[str, Artifact], underway: Underway
) -> None:
    if stage.takes_long and (at.exists(ARTIFACT) or underway.names()):
        changed = " and ".join(find_changed_inputs(existing, inputs))
        raise StaleArtifact(
            f"{at} was made from other {changed} than there are now, and would have to be computed from the start; "
            "choose another --out, or delete the directory"
        )
