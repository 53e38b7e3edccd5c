"""What a program of a user's calls: one stage, in the words of a recipe or by its config, or a whole recipe."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ..manifests.artifact.artifact import open_artifact, source_of
from ..manifests.artifact.fingerprint import config_from
from ..manifests.errors import ConfigError
from ..manifests.files.place import place, split
from ..stages.stage import Inputs, Stage, WholeStage, kind_of
from .recipes.chain import Made, run_recipe as run_each
from .recipes.recipe import read_recipe
from .recipes.schema import nearest, read_table
from .recipes.steps import STEPS
from .running.job import RunOptions
from .running.run import Outcome, run as run_units
from .running.whole import run_whole

Path = str | os.PathLike[str]

# The class of a config → where its stage's record is. The classes are names of the package, too.
RECORDS = {
    "IndexConfig": "index.stage:STAGE",
    "ExtractConfig": "extract.stage:STAGE",
    "PixelsConfig": "pixels.stage:STAGE",
    "PretrainConfig": "pretrain.stage:STAGE",
    "FitConfig": "mask.method_fit:FIT",
    "MaskConfig": "mask.stage:STAGE",
    "EnhancerConfig": "enhance.enhancer_fit:FIT",
    "EnhanceConfig": "enhance.stage:STAGE",
    "RefineConfig": "refine.stage:STAGE",
    "ManifestConfig": "manifest.stage:STAGE",
    "TrainConfig": "train.stage:STAGE",
    "EvaluateConfig": "evaluate.stage:STAGE",
    "FewShotConfig": "evaluate.few_shot:FSCS",
}


def run(
    step: Any, inputs: Mapping[str, Path], out: Path, *, options: RunOptions | None = None, **settings: Any
) -> Outcome:
    """Makes an artifact, or goes on with it, or finds that it is done: `run("mask", {"tokens": "tokens"}, "maps",
    supports=8)`. Settings are the keys of the step's table in a recipe; in the place of a step's name a config does, as
    `config_of` gives it. Of inputs only what the others do not lead to is to be named. Raises MaskmillError where a
    command would end with its sentence."""
    given = {role: place(path).uri for role, path in inputs.items()}
    stage, config = _named(step, given, settings) if isinstance(step, str) else _configured(step, given, settings)
    if isinstance(stage, WholeStage):
        return run_whole(stage, config, given, place(out).uri)
    return run_units(stage, config, given, place(out).uri, options)


def config_of(path: Path) -> Any:
    """What an artifact was made with: a frozen dataclass, for `dataclasses.replace` and `run`."""
    plan = open_artifact(place(path).uri).plan
    for record in map(record_of, RECORDS.values()):
        if record.name == plan.stage:
            return config_from(record.config, {**plan.config, **plan.settings})
    raise ConfigError(f"{place(path)} was made by a stage {plan.stage!r} that this version of maskmill does not have")


def run_recipe(
    recipe: Path, work: Path = "", *, settings: Sequence[str] = (), options: RunOptions | None = None
) -> list[Made]:
    """Runs every step, each skipping what is done; `settings` are such as "refine.threshold=0.5"."""
    uri = os.fspath(recipe)
    at = place(work) if work else split(uri)[0].join("maskmill-work")
    return list(run_each(read_recipe(uri, settings), at, options or RunOptions()))


def _named(step: str, given: dict[str, str], settings: Mapping[str, Any]) -> tuple[Stage | WholeStage, Any]:
    if step not in STEPS:
        raise ConfigError(f"there is no step {step!r}; {nearest(step, STEPS)}")
    found = STEPS[step]
    values, mistakes = read_table(settings, found.options(settings))
    if mistakes:
        raise ConfigError("; ".join(f"{step}: {mistake}" for mistake in mistakes))
    stage = found.stage
    return stage, found.config(values, _completed(stage, tuple(found.reads), given))


def _configured(config: Any, given: dict[str, str], settings: Mapping[str, Any]) -> tuple[Stage | WholeStage, Any]:
    name = type(config).__name__
    if name not in RECORDS or not isinstance(config, (stage := record_of(RECORDS[name])).config):
        raise ConfigError(f"run takes the name of a step or the config of a stage, and was given a {name}")
    if settings:
        raise ConfigError(f"a {name} says all; change it with dataclasses.replace instead of {', '.join(settings)} = …")
    # A student that runs the backbone itself reads no tokens.
    _completed(stage, [role for role in stage.roles if role != "tokens" or not getattr(config, "seeing", None)], given)
    return stage, config


def _completed(stage: Stage | WholeStage, roles: Sequence[str], given: dict[str, str]) -> Inputs:
    """All inputs, opened; those that another leads to are added to what was given."""
    opened = {role: open_artifact(uri, kind_of(stage, role)) for role, uri in given.items()}
    for role in roles:
        if role in given or not opened or role not in ("images", "maps", "tokens"):
            continue
        try:
            given[role] = source_of(next(iter(opened.values())), role)
        except ConfigError:
            if (stage.name, role) != ("train", "images"):  # a dataset that was handed on comes without pictures
                raise
        else:
            opened[role] = open_artifact(given[role], kind_of(stage, role))
    return opened


def record_of(path: str) -> Stage | WholeStage:
    module, _, name = path.partition(":")
    found: Stage | WholeStage = getattr(import_module(f"..stages.{module}", __package__), name)
    return found
