"""`maskmill plan STAGE …`: the same options, and what the command would make of them."""

import click

from ..stages.registry import COMMANDS
from .help import Group
from .options import PLAN_ONLY
from .stage_commands import stage_commands


def _begin() -> None:
    click.get_current_context().meta[PLAN_ONLY] = True


plan = Group(
    "plan",
    lazy=lambda: stage_commands(entry for entry in COMMANDS.values() if entry.command.has_units),
    callback=_begin,
    help="Show what a stage would make: rows, units, files, bytes, memory. Writes nothing.",
)
