"""From what a user asks of a command to its artifact: the one way for a shell, a recipe and a program."""

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
    """A command with everything that was left open settled."""

    stage: Stage | WholeStage
    config: Any
    inputs: Inputs

    @property
    def uris(self) -> dict[str, str]:
        return {role: artifact.place.uri for role, artifact in self.inputs.items()}


def place_order(command: Command, config: Any, given: Mapping[str, str]) -> Order:
    """`given` says where artifacts lie, by role; those that others lead to need not be named."""
    stage = command.stage
    inputs = complete_inputs(command, given, config, stage.skips(config))
    return Order(stage, stage.resolve(config, inputs), inputs)


def make(order: Order, out: str, options: RunOptions, show: Show = no_progress) -> Outcome | None:
    """Makes the artifact, goes on with it, or finds that it is done. None: by another process of torchrun's."""
    if isinstance(order.stage, WholeStage):
        return run_together(order.stage, order.config, order.uris, out, options.break_lock, show)
    return run(order.stage, order.config, order.uris, out, options)


def complete_inputs(command: Command, given: Mapping[str, str], config: Any, skips: Sequence[str]) -> Inputs:
    """All inputs that a config reads, opened: those that are named, and those that the first of these leads to."""
    names = list(command.roles)
    for role in given:
        if role not in names and role.rstrip("0123456789") not in _roles_with_numbers(command):
            raise ConfigError(f"{command.name} reads no {role!r}; {nearest(role, names)}")
    inputs = {role: open_artifact(uri, command.role(role).kind) for role, uri in given.items()}
    for role, each in command.roles.items():
        is_numbered = each.several == role and any(name.startswith(role) for name in inputs)
        is_a_file = bool(each.or_field) and bool(getattr(config, each.or_field))
        if role in inputs or is_numbered or is_a_file or role in skips:
            continue
        leading = inputs.get(each.found_from) if each.found_from else next(iter(inputs.values()), None)
        if each.is_found and leading is not None:
            try:
                inputs[role] = open_artifact(source_of(leading, role), each.kind)
            except ConfigError as error:
                if not each.is_optional:
                    raise ConfigError(str(error).replace(flag(role), each.flag)) from error
        elif not each.is_optional:
            how = f"pass a {each.kind} artifact as {each.flag}" if each.flag else f"name a {each.kind} artifact"
            raise ConfigError(f"{command.name} reads {role}, which is not given; {how}")
    order = {name: number for number, name in enumerate(command.roles)}
    return dict(sorted(inputs.items(), key=lambda item: order.get(item[0], order.get("images", len(order)) + 0.5)))


def _roles_with_numbers(command: Command) -> Sequence[str]:
    return [each.several for each in command.roles.values() if each.several]
