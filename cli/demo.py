"""`maskmill demo`: everything the package does, on pictures made on the spot or on a person's own."""

from contextlib import nullcontext

import click

from ..manifests import atomic
from ..manifests.errors import ConfigError
from ..manifests.place import Place, place
from ..pipeline.demo import BETTER, gains, own_steps, steps
from .main import main


@click.command()
@click.option("--out", metavar="DIR", default="", help="Where to work and leave it all; a temporary folder otherwise.")
@click.option("--images", metavar="DIR", default="", help="Your own pictures, in the place of generated ones.")
def demo(out: str, images: str) -> int:
    """Run everything on pictures made on the spot, showing each command and what it says."""
    at = place(out)
    if out and next(at.names(), None) is not None:
        raise ConfigError(f"{at} is not empty; choose another --out for the demo")
    if images and not out:
        raise ConfigError("what is made of your own pictures is to be looked at; say where to with --out DIR")
    with nullcontext(at) if out else atomic.scratch("maskmill-demo-") as work:
        for step in own_steps(work, place(images).uri) if images else steps(work):
            click.echo(f"\n# {step.why}\n$ {step}")
            code = main(step.arguments)
            if code not in step.exit_codes:
                expected = " or ".join(map(str, step.exit_codes))
                click.echo(f"the demo expected exit code {expected} here and got {code}", err=True)
                return code or 1
        if not images:
            _show_gains(work)
        if out:
            click.echo(f"\nthe report: {work.path('report.html')}")
    click.echo(f"The same with weights of DINO's, which timm downloads: {BETTER}")
    return 0


def _show_gains(work: Place) -> None:
    lines = gains(work)
    width = max(len(each.what) for each in lines)
    click.echo(f"\n# what each step gained; 95 % intervals\n{'':{width}}  pictures  mIoU")
    for each in lines:
        click.echo(f"{each.what:{width}}  {each.pictures:8}  {each.miou:.3f} ({each.low:.3f}–{each.high:.3f})")
