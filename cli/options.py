"""Options that every command which runs a stage has, and what such a command does with them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..pipeline.answers.estimate import estimate
from ..pipeline.running.job import MAX_BAD, RunOptions
from ..pipeline.running.run import run
from ..stages.stage import Stage
from .answers import show_estimate, show_outcome

F = TypeVar("F", bound=Callable[..., Any])
PLAN_ONLY = "maskmill.plan_only"


class PartType(click.ParamType[tuple[int, int]]):
    """I/N, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            part, parts = (int(number) for number in str(value).split("/"))
        except ValueError:
            self.fail(f"{value!r} is not of the form I/N, such as 1/16", param, ctx)
        if not 1 <= part <= parts:
            self.fail(f"part {part} of {parts} does not exist; parts are counted from 1 to N", param, ctx)
        return part, parts


WHERE = [
    click.option(
        "--workers", type=click.IntRange(0), default=0, help="Local worker processes; 0 runs in this process."
    ),
    click.option("--scheduler", metavar="ADDRESS", default="", help="Run on an existing Dask cluster."),
    click.option(
        "--cluster", metavar="FILE", default="", help="Run on batch jobs started through dask-jobqueue (TOML)."
    ),
    click.option("--insecure", is_flag=True, help="Allow a scheduler that is neither local nor tls://."),
]
HOW = [
    click.option(
        "--trust", is_flag=True, help="Believe files of the recorded size that are no newer than their record."
    ),
    click.option(
        "--max-bad",
        type=click.FloatRange(0, 1),
        default=MAX_BAD,
        show_default=True,
        help="Share of rows that may fail.",
    ),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--log", type=click.Choice(["progress", "json"]), default="progress", help="json: a line per unit."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
]
NEW = [
    click.option("--out", metavar="DIR", help="Where the artifact is made: a directory or an fsspec URL."),
    click.option("--part", type=PartType(), help="Run only this share of the units; then `maskmill finish DIR`."),
    click.option("--unit-rows", type=click.IntRange(0), default=0, help="Rows per unit; 0 chooses (at most 256 MB)."),
]


def with_options(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Adds options to a command in the order in which they are listed."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


stage_options = with_options(*NEW, *WHERE, *HOW)
again_options = with_options(*WHERE, *HOW)


def run_options(values: Mapping[str, Any]) -> RunOptions:
    """The run options among a command's parameters."""
    names = {field.name for field in dataclasses.fields(RunOptions)}
    return RunOptions(**{name: value for name, value in values.items() if name in names})


def run_stage(stage: Stage, config: Any, inputs: Mapping[str, str], values: Mapping[str, Any]) -> int:
    """Runs a stage as a command asks, or, under `maskmill plan`, says what it would do."""
    context = click.get_current_context()
    options = run_options(values)
    if context.meta.get(PLAN_ONLY):
        return show_estimate(estimate(stage, config, inputs, options), values["as_json"])
    if not values["out"]:
        raise click.UsageError("Missing option '--out'.", context)
    return show_outcome(run(stage, config, inputs, values["out"], options), values["as_json"])
