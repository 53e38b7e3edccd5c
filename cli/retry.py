"""`maskmill retry DIR`."""

from typing import Any

import click

from ..pipeline.running.run import retry as run_again
from .answers import show_outcome
from .options import again_options, run_options


@click.command()
@click.argument("artifact")
@again_options
def retry(artifact: str, **values: Any) -> int:
    """Run the units of ARTIFACT that hold failed rows again, with the configuration they were planned with."""
    return show_outcome(run_again(artifact, run_options(values)), values["as_json"])
