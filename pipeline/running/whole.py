"""A stage without units, from a command to a finished artifact: what it makes is computed in one go.

Order of writing: plan.json, the files, artifact.json. What is there is done if it was made with this configuration of
these inputs, and its files are what was written. What takes long may keep where it is (see `Underway`): then plan.json
is written with the first that it keeps, and the same command goes on from the last.
"""

import sys
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
        before = _existing_summary(at, existing, read)
        underway = Underway(at, partial(_begin, at, plan), partial(log, at), _say, show)
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
            replace(each, content=input_digest(inputs[each.role], each.fields))
            for each in inputs_of(at, inputs, header)
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
    """Computes before it changes anything but what it keeps, so that what failed has left what was there."""
    found = stage.compute(config, inputs, underway)
    _begin(at, plan)
    atomic.remove(at, ARTIFACT)
    for name, data in found.files.items():
        atomic.write(at, name, data)
    summary = Summary(
        plan_sha256=FileDigest.of(at.read(PLAN)).sha256,
        fingerprint=plan.fingerprint,
        counts=dict(found.facts),
        warnings=tuple(found.warnings),
        files={name: FileDigest.of(data) for name, data in found.files.items()},
        ledgers={},
    )
    sealed.write(at, ARTIFACT, summary.as_json())
    return summary


def _say(text: str) -> None:
    """On standard error; standard output is for the result."""
    print(f"maskmill: {text}", file=sys.stderr, flush=True)


def _begin(at: Place, plan: Plan) -> None:
    if not at.exists(PLAN) or read_plan(at) != plan:
        atomic.remove(at, ARTIFACT)
        write_plan(at, plan)


def _existing_summary(at: Place, existing: Plan | None, inputs: Mapping[str, Artifact]) -> Summary | None:
    """What was made before, if it was made of what there is now and is whole."""
    return valid_summary(at) if existing is not None and not find_changed_inputs(existing, inputs) else None


def find_changed_inputs(existing: Plan, inputs: Mapping[str, Artifact]) -> list[str]:
    """The roles whose artifact is not what was read, wherever it lies and whatever else it holds by now."""
    before = {each.role: each for each in existing.inputs}
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
            f"{at} was made of other {changed} than there are now, and making it anew would take as long again; choose "
            "another --out, or delete the directory"
        )
