"""`maskmill demo`: everything the package does, on pictures made on the spot."""

from contextlib import nullcontext

import click

from ..manifests import atomic
from ..manifests.errors import ConfigError
from ..manifests.place import place
from ..pipeline.demo import steps
from .main import main


@click.command()
@click.option("--out", metavar="DIR", default="", help="Where to work and leave it all; a temporary folder otherwise.")
def demo(out: str) -> int:
    """Run everything on pictures made on the spot, showing each command and what it says."""
    at = place(out)
    if out and next(at.names(), None) is not None:
        raise ConfigError(f"{at} is not empty; choose another --out for the demo")
    with nullcontext(at) if out else atomic.scratch("maskmill-demo-") as work:
        for step in steps(work):
            click.echo(f"\n# {step.why}\n$ {step}")
            code = main(step.arguments)
            if code != step.exit_code:
                click.echo(f"the demo expected exit code {step.exit_code} here and got {code}", err=True)
                return code or 1
    click.echo("\nThe same on your own pictures: maskmill run --images YOUR_PICTURES")
    return 0
