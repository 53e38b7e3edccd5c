"""`maskmill demo`: run the whole pipeline on generated pictures, or on the user's own."""

import time

import click

from ..manifests.errors import InputError
from ..manifests.files.place import Place, place
from ..pipeline.recipes.demo import FOLDER, REPORT, begin, better, gains, own_steps, steps
from .main import INTERRUPTED, READER_LEFT, TERMINATED, main
from .tables import print_table

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
        click.echo(f"# resuming the demo in {work}")
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
    click.echo(f"For useful masks, run it with DINO weights, which timm downloads: {better(images)}")
    return 0


def _show_gains(work: Place) -> None:
    click.echo("\n# what each step gained; 95 % intervals")
    rows = [
        (gain.what, str(gain.pictures), f"{gain.miou:.3f} ({gain.low:.3f}–{gain.high:.3f})") for gain in gains(work)
    ]
    print_table(("", "pictures", "mIoU"), rows)
