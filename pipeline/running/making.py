"""From a command and its options to its artifact, for a shell and a program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...manifests.artifact.artifact import open_artifact, source_of
from ...manifests.artifact.config import flag
from ...manifests.artifact.underway import Show, no_progress
from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError
from ...stages.command import Command
from ...stages.stage import Inputs, Stage, WholeStage
from .options import RunOptions
from .run import Outcome, run
from .together import run_together


@dataclass(frozen=True, slots=True)
class Order:
    """A command with all open options and inputs settled."""

    stage: Stage | WholeStage
    config: Any
    inputs: Inputs

    @property
    def uris(self) -> dict[str, str]:
        return {role: artifact.place.uri for role, artifact in self.inputs.items()}


def place_order(command: Command, config: Any, given: Mapping[str, str]) -> Order:
    """`given` has the places of artifacts by role; artifacts that others lead to may be left out."""
    stage = command.stage
    inputs = complete_inputs(command, given, config, stage.skips(config))
    return Order(stage, stage.resolve(config, inputs), inputs)


def make(order: Order, out: str, options: RunOptions, show: Show = no_progress) -> Outcome | None:
    """Makes the artifact, or resumes it; does nothing if it is done. None in the other processes of torchrun."""
    if isinstance(order.stage, WholeStage):
        return run_together(order.stage, order.config, order.uris, out, options.break_lock, show)
    return run(order.stage, order.config, order.uris, out, options)


def complete_inputs(command: Command, given: Mapping[str, str], config: Any, skips: Sequence[str]) -> Inputs:
    """All inputs that a config reads, opened: those that are named, and those that these lead to."""
    numbered = [role.several for role in command.roles.values() if role.several]
    for name in given:
        if name not in command.roles and name.rstrip("0123456789") not in numbered:
            raise ConfigError(f"{name!r} is not an input of {command.name}; {nearest(name, command.roles)}")
    inputs = {name: open_artifact(uri, command.role(name).kind) for name, uri in given.items()}
    for name, role in command.roles.items():
        is_numbered = role.several == name and any(other.startswith(name) for other in inputs)
        is_file = bool(role.or_field) and bool(getattr(config, role.or_field))
        if name in inputs or is_numbered or is_file or name in skips:
            continue
        leading = inputs.get(role.found_from) if role.found_from else next(iter(inputs.values()), None)
        if role.is_found and leading is not None:
            try:
                inputs[name] = open_artifact(source_of(leading, name), role.kind)
            except ConfigError as error:
                if not role.is_optional:
                    raise ConfigError(str(error).replace(flag(name), role.flag)) from error
        elif not role.is_optional:
            remedy = f"pass a {role.kind} artifact as {role.flag}" if role.flag else f"name a {role.kind} artifact"
            raise ConfigError(f"{command.name} reads {name}, which is missing; {remedy}")
    order = {name: number for number, name in enumerate(command.roles)}
    return dict(sorted(inputs.items(), key=lambda item: order.get(item[0], order.get("images", len(order)) + 0.5)))
