"""Configs as a user asks for them, and commands of the tests' own stages."""

from collections.abc import Mapping
from typing import Any

from maskmill.manifests.artifact.artifact import Artifact
from maskmill.manifests.artifact.config import build_config, options_of
from maskmill.stages.command import Command, Role
from maskmill.stages.registry import COMMANDS, Entry


def make_config(config: type[Any], inputs: Mapping[str, Artifact] | None = None, **settings: Any) -> Any:
    """The config that a command makes of settings and, where it looks at them, of its inputs."""
    entry = next(each for each in COMMANDS.values() if each.config == config.__name__)
    is_flat = settings.keys() <= options_of(config).keys()
    built = build_config(config, settings) if is_flat else config(**settings)
    return entry.command.stage.resolve(built, inputs or {})


def make_command(name: str, makes: str, config: type[Any], roles: Mapping[str, str], work: str = "") -> Command:
    """A command of a stage that stands at `work`, such as "builders.toy:TOY", where a worker has to find it."""
    command = Command(
        name=name,
        makes=makes,
        config=config,
        work=work,
        roles={role: Role(kind=kind, help=kind) for role, kind in roles.items()},
    )
    if work:
        COMMANDS[name] = _Registered(name, work, config.__name__, f"Make {makes}.")
        _COMMANDS[name] = command
    return command


_COMMANDS: dict[str, Command] = {}


class _Registered(Entry):
    @property
    def command(self) -> Command:
        return _COMMANDS[self.typed]
