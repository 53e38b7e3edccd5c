"""`maskmill demo`: everything the package does, on pictures made on the spot or on a person's own."""

import time

import click

from ..manifests.errors import InputError
from ..manifests.files.place import Place, place
from ..pipeline.recipes.demo import FOLDER, REPORT, begin, better, gains, own_steps, steps
from .main import INTERRUPTED, READER_LEFT, TERMINATED, main

STOPPED = (INTERRUPTED, READER_LEFT, TERMINATED)


@click.command()
@click.option("--out", metavar="DIR", default=FOLDER, show_default=True, help="Work folder; rerun to resume.")
@click.option("--images", metavar="DIR", default="", help="Use your own pictures instead of generated ones.")
def demo(out: str, images: str) -> int:
    """Run everything on generated pictures, showing each command and its output. Rerun to resume."""
    began = time.monotonic()
    work, pictures = place(out), place(images) if images else None
    if pictures is not None and pictures.is_local and not pictures.exists():
        raise InputError(f"--images is {pictures}, which is not there; check the path")
    if begin(work):
        click.echo(f"# goes on in {work}, where an earlier demo lies")
    for step in own_steps(work, pictures.uri) if pictures else steps(work):
        click.echo(f"\n# {step.why}\n$ {step}")
        code = main(step.arguments)
        if code in STOPPED:
            return code
        if code not in step.exit_codes:
            expected = " or ".join(map(str, step.exit_codes))
            click.echo(f"the demo expected exit code {expected} here and got {code}", err=True)
            return code or 1
    if pictures is None:
        _show_gains(work)
    click.echo(f"\nthe report, after {time.monotonic() - began:.0f} s: {work.path(REPORT)}")
    click.echo(f"The same with weights of DINO's, which timm downloads: {better(images)}")
    return 0


def _show_gains(work: Place) -> None:
    lines = gains(work)
    width = max(len(line.what) for line in lines)
    click.echo(f"\n# what each step gained; 95 % intervals\n{'':{width}}  pictures  mIoU")
    for line in lines:
        click.echo(f"{line.what:{width}}  {line.pictures:8}  {line.miou:.3f} ({line.low:.3f}–{line.high:.3f})")
