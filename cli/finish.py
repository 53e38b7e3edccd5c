"""`maskmill finish DIR`."""

from typing import Any

import click

from .answers import show_outcome
from .help import SectionedCommand
from .options import HOW, run_options, running


@click.command(cls=SectionedCommand, running=running(HOW))
@click.argument("artifact", help="Artifact whose parts have run.")
def finish(artifact: str, **values: Any) -> int:
    """Complete ARTIFACT whose parts have run: check the ledger, gather the rows, write artifact.json."""
    from ..pipeline.running.run import finish_parts

    return show_outcome(finish_parts(artifact, run_options(values)), values["as_json"])
