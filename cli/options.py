"""The run options of every command that makes an artifact."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..manifests.artifact.config import options_of
from ..pipeline.running.options import RunOptions
from ..stages.command import Command as Record
from .parameters import click_option

PLAN_ONLY = "maskmill.plan_only"
WHERE = ("workers", "scheduler", "cluster", "insecure")
HOW = ("trust", "max_bad", "break_lock", "log")
JSON_HELP = "Print the result as JSON."


def running(names: Sequence[str]) -> list[click.Parameter]:
    """The run options by name, and those for the output of a command."""
    options = options_of(RunOptions)
    options["log"] = dataclasses.replace(options["log"], default="progress")
    return [
        *(click_option(options[name]) for name in names),
        click.Option(["--json", "as_json"], is_flag=True, help=JSON_HELP),
        click.Option(["-q", "--quiet"], is_flag=True, help="Show warnings and errors only."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show every step."),
    ]


def stage_running(record: Record) -> list[click.Parameter]:
    """The run options of a stage: all if it has units, few if it makes its result in one go."""
    out = click.Option(["--out"], metavar="DIR", help="Place of the artifact: a directory or an fsspec URL.")
    curves = click.Option(["--tensorboard"], metavar="DIR", default="", help="Write the metrics as TensorBoard curves.")
    names = ["part", "unit_rows", *WHERE, *HOW] if record.has_units else ["break_lock"]
    update = ["update"] if record.follows_source else []
    return [out, *([curves] if record.is_training else []), *running([*update, *names])]


def run_options(values: Mapping[str, Any]) -> RunOptions:
    """The run options among a command's parameters; also sets the log level."""
    level = logging.DEBUG if values.get("verbose") else logging.WARNING if values.get("quiet") else logging.INFO
    logging.getLogger("maskmill").setLevel(level)
    chosen = {name: values[name] for name in options_of(RunOptions) if values.get(name) is not None}
    if values.get("quiet") and chosen.get("log") == "progress":
        chosen["log"] = "quiet"
    return RunOptions(**chosen)
