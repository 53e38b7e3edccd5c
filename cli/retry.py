"""`maskmill retry DIR`."""

from typing import Any

import click

from .answers import show_outcome
from .help import SectionedCommand
from .options import HOW, WHERE, run_options, running


@click.command(cls=SectionedCommand, running=running([*WHERE, *HOW]))
@click.argument("artifact", help="Artifact with failed rows.")
def retry(artifact: str, **values: Any) -> int:
    """Rerun the units of ARTIFACT that have failed rows, with the settings that it was made with."""
    from ..pipeline.running.run import retry as run_again

    return show_outcome(run_again(artifact, run_options(values)), values["as_json"])
