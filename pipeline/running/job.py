"""What a run is asked to do, in the form that travels to a worker: a stage, its config, places, and no data."""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.artifact.config import config_json
from ...manifests.artifact.plan import FieldGroup, Plan, read_plan
from ...manifests.errors import MaskmillError
from ...manifests.files.place import Place
from ...manifests.files.sealed import digest_of
from ...stages.stage import Stage, WholeStage
from ...stages.vision.summation import fix_summation_order

T = TypeVar("T")

TRIES = 3  # the first and two more, of a unit that raised or whose worker died


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs besides the unit."""

    stage: Stage
    config: Any
    at: Place
    inputs: Mapping[str, Place]
    group: str
    plan_digest: str
    trust: bool = False
    retry_failed: bool = False

    def key(self) -> str:
        """Equal for equal jobs: the state that a process keeps for a job is found by it."""
        return digest_of([self.at.uri, self.plan_digest, self.group, self.stage.name, config_json(self.config)])


@dataclass(frozen=True, slots=True)
class OpenJob:
    """What every unit of a job reads, read once in each process."""

    plan: Plan
    group: FieldGroup
    inputs: Mapping[str, Artifact]


class PreparationError(Exception):
    """What a stage loads once per process could not be loaded: no unit can run, so none is tried again."""


_open_jobs: dict[str, OpenJob] = {}
_prepared: dict[str, Any] = {}


def open_job(job: Job) -> OpenJob:
    return _get_or_make(_open_jobs, job.key(), lambda: _open(job))


def prepare_stage(job: Job) -> Any:
    """What the stage loads once per process, such as a model; loaded when the first unit is really run."""
    return _get_or_make(_prepared, job.key(), lambda: _prepare(job))


def forget(job: Job) -> None:
    """Lets go of what this process keeps for a job, such as a model; a cluster's worker outlives the run."""
    _open_jobs.pop(job.key(), None)
    _prepared.pop(job.key(), None)


def _get_or_make(kept: dict[str, T], key: str, make: Callable[[], T]) -> T:
    if key not in kept:
        while len(kept) >= 2:  # a job and the one after it: models are too large to collect
            kept.pop(next(iter(kept)))
        kept[key] = make()
    return kept[key]


def _open(job: Job) -> OpenJob:
    plan = read_plan(job.at)
    group = next(group for group in plan.groups if group.name == job.group)
    return OpenJob(plan, group, {role: open_artifact(where) for role, where in job.inputs.items()})


def _prepare(job: Job) -> Any:
    make_reproducible(job.stage, job.config)
    if job.stage.prepare is None:
        return None
    try:
        return job.stage.prepare(job.config, open_job(job).inputs)
    except MaskmillError:
        raise
    except Exception as error:
        raise PreparationError(f"{job.stage.name} could not load what its units need: {error}") from error


def libraries_of(stage: Stage | WholeStage, config: Any) -> tuple[str, ...]:
    """Those whose versions change what the stage computes."""
    return tuple(stage.libraries(config) if callable(stage.libraries) else stage.libraries)


def make_reproducible(stage: Stage | WholeStage, config: Any) -> None:
    """Call before the stage computes: makes its numbers independent of the number of threads."""
    if "torch" in libraries_of(stage, config):
        fix_summation_order()


def software(libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """The versions that a ledger record carries."""
    names = sorted({"maskmill", "numpy", "pyarrow", "zarr", "Pillow", *libraries})
    return {name: version_of(name) for name in names}


@lru_cache(maxsize=64)
def version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
