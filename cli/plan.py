"""`maskmill plan STAGE …`: a stage's own options, and what it would make of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from ..pipeline.estimate import estimate
from ..pipeline.job import RunOptions
from ..stages.stage import Stage
from .index import index
from .options import PLAN_ONLY, echo_json, size


@click.group(commands={"index": index})
@click.pass_context
def plan(context: click.Context) -> None:
    """Say what a stage would make: rows, units, files, bytes, memory. Writes nothing."""
    context.meta[PLAN_ONLY] = True


def show_estimate(stage: Stage, config: Any, inputs: Mapping[str, str], options: RunOptions, as_json: bool) -> int:
    found = estimate(stage, config, inputs, options)
    if as_json:
        echo_json(dataclasses.asdict(found))
        return 0
    click.echo(f"{found.stage} would make {found.kind}, fingerprint {found.fingerprint[:12]}:")
    click.echo(f"  {found.rows:,} rows in {found.units:,} units of {found.unit_rows:,}, {found.files:,} files")
    for name, num_bytes in found.bytes_per_field.items():
        click.echo(f"  {name}: {size(num_bytes)}")
    click.echo(f"  memory per worker, besides the model: {size(found.memory_per_worker_bytes)}")
    return 0
