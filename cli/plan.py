"""`maskmill plan STAGE …`: a stage's own options, and what it would make of them."""

import click

from .extract import extract
from .index import index
from .manifest import manifest
from .mask import mask
from .options import PLAN_ONLY
from .refine import refine


@click.group(commands={"index": index, "extract": extract, "mask": mask, "refine": refine, "manifest": manifest})
@click.pass_context
def plan(context: click.Context) -> None:
    """Say what a stage would make: rows, units, files, bytes, memory. Writes nothing."""
    context.meta[PLAN_ONLY] = True
