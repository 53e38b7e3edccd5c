"""`maskmill plan STAGE …`: a stage's own options, and what it would make of them."""

import click

from .enhance import apply
from .extract import extract
from .index import index
from .manifest import manifest
from .mask import mask
from .options import PLAN_ONLY
from .pixels import pixels
from .refine import refine

PLANNED = (index, extract, pixels, mask, refine, manifest)


ENHANCE = click.Group("enhance", {"apply": apply}, help="Make better maps of the maps of heads.")


@click.group(commands={str(command.name): command for command in (*PLANNED, ENHANCE)})
@click.pass_context
def plan(context: click.Context) -> None:
    """Say what a stage would make: rows, units, files, bytes, memory. Writes nothing."""
    context.meta[PLAN_ONLY] = True
