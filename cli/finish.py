"""`maskmill finish DIR`."""

from typing import Any

import click

from ..pipeline.running.run import finish_parts
from .answers import show_outcome
from .options import HOW, run_options, with_options


@click.command()
@click.argument("artifact")
@with_options(*HOW)
def finish(artifact: str, **values: Any) -> int:
    """Complete ARTIFACT whose parts have run: check the ledger, gather the rows, write artifact.json."""
    return show_outcome(finish_parts(artifact, run_options(values)), values["as_json"])
