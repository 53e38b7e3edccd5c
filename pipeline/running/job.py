"""What a worker is sent: a stage, its config and places, no data."""

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

TRIES = 3  # in all, for a unit that raised or whose worker died


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs besides the unit."""

    stage: Stage
    config: Any
    at: Place
    inputs: Mapping[str, Place]
    group: str
    plan_digest: str
    trust: bool = False
    retry_failed: bool = False

    def key(self) -> str:
        """Equal for equal jobs; a process stores the state of a job under it."""
        return digest_of([self.at.uri, self.plan_digest, self.group, self.stage.name, config_json(self.config)])


@dataclass(frozen=True, slots=True)
class OpenJob:
    """What all units of a job share, read once in each process."""

    plan: Plan
    group: FieldGroup
    inputs: Mapping[str, Artifact]


class PreparationError(Exception):
    """A stage could not load what it needs once per process. No unit can run, so none is retried."""


_open_jobs: dict[str, OpenJob] = {}
_prepared: dict[str, Any] = {}


def open_job(job: Job) -> OpenJob:
    return _get_or_make(_open_jobs, job.key(), lambda: _open(job))


def prepare_stage(job: Job) -> Any:
    """What the stage loads once per process, such as a model. Loaded for the first unit that is not skipped."""
    return _get_or_make(_prepared, job.key(), lambda: _prepare(job))


def forget(job: Job) -> None:
    """Frees what this process keeps for a job, such as a model. A cluster's worker outlives the run."""
    _open_jobs.pop(job.key(), None)
    _prepared.pop(job.key(), None)


def _get_or_make(cache: dict[str, T], key: str, make: Callable[[], T]) -> T:
    if key not in cache:
        while len(cache) >= 2:  # this job and the one before: models are too large to keep more
            cache.pop(next(iter(cache)))
        cache[key] = make()
    return cache[key]


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
    """The libraries whose versions change what the stage computes."""
    return tuple(stage.libraries(config) if callable(stage.libraries) else stage.libraries)


def make_reproducible(stage: Stage | WholeStage, config: Any) -> None:
    """Call before the stage computes: makes its numbers independent of the number of threads."""
    if "torch" in libraries_of(stage, config):
        fix_summation_order()


def software(libraries: tuple[str, ...] = ()) -> dict[str, str]:
    names = sorted({"maskmill", "numpy", "pyarrow", "zarr", "Pillow", *libraries})
    return {name: version_of(name) for name in names}


@lru_cache(maxsize=64)
def version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
