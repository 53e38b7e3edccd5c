"""One stage with units, from a command to a finished artifact: lock, plan, units, finish."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...manifests.artifact.artifact import Summary, open_artifact
from ...manifests.artifact.config import config_from
from ...manifests.artifact.fingerprint import ids_digest
from ...manifests.artifact.layout import Unit
from ...manifests.artifact.plan import PLAN, FieldGroup, Plan, listing_batches, missing_units, read_plan
from ...manifests.errors import ConfigError, MaskmillError, UnfinishedArtifact
from ...manifests.files import atomic, lock
from ...manifests.files.digests import FileDigest
from ...manifests.files.place import Place, place
from ...stages.registry import find_unit_stage
from ...stages.stage import Stage
from .executors import Executor, executor_for
from .finishing import finish
from .job import Job, make_reproducible
from .options import RunOptions
from .planning import Request, ask, merge_existing_fields, update_plan
from .progress import RunProgress


@dataclass(frozen=True, slots=True)
class Outcome:
    at: Place
    kind: str
    rows: int
    counts: Mapping[str, Any]  # empty if the run was one part of several
    units_run: int
    units_skipped: int
    warnings: tuple[str, ...]
    seconds: float
    finished: bool
    notices: tuple[str, ...] = ()  # what was done on assumptions; without an exit code

    @property
    def exit_code(self) -> int:
        return 6 if self.warnings else 0


def run(stage: Stage, config: Any, inputs: Mapping[str, str], out: str, options: RunOptions | None = None) -> Outcome:
    """Makes or resumes an artifact; does nothing if it is done."""
    options = options or RunOptions()
    at = place(out)
    make_reproducible(stage, config)
    request = ask(
        stage, config, {role: open_artifact(uri, stage.command.role(role).kind) for role, uri in inputs.items()}
    )
    execute = executor_for(options, at, *(artifact.place for artifact in request.inputs.values()))
    refuse_strangers(at)
    atomic.check_can_write(at)
    with lock.hold_lock(at, shared=options.part is not None, break_lock=options.break_lock):
        return _run_locked(at, request, options, execute)


def retry(out: str, options: RunOptions | None = None) -> Outcome:
    """Reruns the units that have failed rows, with the configuration of the artifact."""
    at = place(out)
    stage, config, inputs = _read_request(at, read_plan(at))
    return run(stage, config, inputs, at.uri, replace(options or RunOptions(), retry_failed=True))


def finish_parts(out: str, options: RunOptions | None = None) -> Outcome:
    """Finishes an artifact whose parts have run. Every unit must have a record; damaged units are done again."""
    options = options or RunOptions()
    at = place(out)
    plan = read_plan(at)
    for group in plan.groups:
        missing = missing_units(at, plan, group)
        if missing:
            raise UnfinishedArtifact(
                f"{at} lacks {len(missing)} of {plan.layout(group).num_units} units (the first is unit {missing[0]}); "
                "run the missing parts, then `maskmill finish` again"
            )
    stage, config, inputs = _read_request(at, plan)
    request = ask(stage, config, {role: open_artifact(uri) for role, uri in inputs.items()})
    with lock.hold_lock(at, break_lock=options.break_lock):
        atomic.sweep_temporaries(at)
        plan = update_plan(at, request, plan, replace(options, part=(1, 1)))  # refuses what a run would refuse
        return _run_units(at, request, plan, options, executor_for(options, at), time.monotonic())


def units_with_digests(at: Place, plan: Plan, group: FieldGroup) -> Iterator[Unit]:
    """The units of a group with the digests of their ids, in one pass over the listing."""
    waiting: list[str] = []
    batches = listing_batches(at, plan)
    for unit in plan.layout(group).units():
        while len(waiting) < unit.num_rows:
            waiting.extend(next(batches).column("id").to_pylist())
        ids, waiting = waiting[: unit.num_rows], waiting[unit.num_rows :]
        yield Unit(unit.index, unit.start, unit.stop, ids_digest(ids))


def _run_locked(at: Place, request: Request, options: RunOptions, execute: Executor) -> Outcome:
    began = time.monotonic()
    if options.part is None:
        atomic.sweep_temporaries(at)
    existing = read_plan(at) if at.exists(PLAN) else None
    request = merge_existing_fields(request, existing)
    try:
        plan = update_plan(at, request, existing, options)
    except MaskmillError:
        if existing is None and options.part is None:  # other parts may have written there meanwhile
            leave_nothing(at)
        raise
    return _run_units(at, request, plan, options, execute, began)


def _run_units(
    at: Place, request: Request, plan: Plan, options: RunOptions, execute: Executor, began: float
) -> Outcome:
    progress = RunProgress(request.stage.name, sum(plan.layout(group).num_units for group in plan.groups), options.log)
    inputs = {role: artifact.place for role, artifact in request.inputs.items()}
    plan_digest = FileDigest.of(at.read(PLAN)).sha256
    with progress:
        for group in plan.groups:
            job = Job(
                request.stage, request.config, at, inputs, group.name, plan_digest, options.trust, options.retry_failed
            )
            units = _of_part(units_with_digests(at, plan, group), options.part)
            execute(job, units, progress.report)
    if options.part is not None:
        return _outcome(at, plan, None, progress, began)
    if options.on_workers:  # a killed worker may have left temporary files
        atomic.sweep_temporaries(at)
    warn = partial(request.stage.warn, request.config, request.inputs)
    outcome = _outcome(at, plan, finish(at, plan, options.max_bad, warn, request.stage.describe), progress, began)
    notices = request.stage.notice(request.config, request.inputs) if progress.run else ()
    return replace(outcome, notices=tuple(notices))


def _of_part(units: Iterator[Unit], part: tuple[int, int] | None) -> Iterator[Unit]:
    """Every N-th unit, so that parts are disjoint and each covers the whole list."""
    if part is None:
        return units
    number, parts = part
    return (unit for unit in units if unit.index % parts == number - 1)


def _outcome(at: Place, plan: Plan, summary: Summary | None, progress: RunProgress, began: float) -> Outcome:
    return Outcome(
        at=at,
        kind=plan.kind,
        rows=plan.num_rows,
        counts=summary.counts if summary else {},
        units_run=progress.run,
        units_skipped=progress.skipped,
        warnings=summary.warnings if summary else (),
        seconds=time.monotonic() - began,
        finished=summary is not None,
    )


def refuse_strangers(at: Place) -> None:
    if at.exists(PLAN):
        return
    strangers = (name for name in at.names() if name.partition("/")[0] not in {".lock", "listing", "log"})
    stranger = next((name for name in strangers if not name.endswith(atomic.TEMPORARY_SUFFIX)), None)
    if stranger is not None and not at.exists(PLAN):  # another part or run may have begun it meanwhile
        raise ConfigError(f"{at} is not an artifact and not empty (it holds {stranger}); choose another --out")


def leave_nothing(at: Place) -> None:
    """Removes what is left of an artifact that could not be planned."""
    for name in list(at.names()):
        atomic.remove(at, name)
    atomic.remove_directory(at)


def _read_request(at: Place, plan: Plan) -> tuple[Stage, Any, dict[str, str]]:
    if not plan.groups:
        raise ConfigError(f"{at} was made in one go and has no units; run `maskmill {plan.stage}` again")
    stage = find_unit_stage(plan.stage)
    config = config_from(stage.config, {**plan.config, **plan.settings})
    return stage, config, {read.role: read.place(at).uri for read in plan.inputs}
