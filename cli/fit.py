"""`maskmill fit TOKENS`."""

import click

from ..manifests.files.place import place
from .answers import show_outcome
from .options import with_options


@click.command()
@click.argument("tokens")
@with_options(
    click.option("--method", metavar="M", required=True, help="A mask method that is fitted."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
    click.option("--out", metavar="DIR", required=True, help="Where the checkpoint is made."),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
def fit(tokens: str, method: str, seed: int, images: str, out: str, break_lock: bool, as_json: bool) -> int:
    """Fit a mask method on the image-level labels of TOKENS, a tokens artifact: the checkpoint that mask takes."""
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..pipeline.running.whole import run_whole
    from ..stages.mask.method_fit import FIT, fit_config

    config = fit_config(method, seed)
    opened = open_artifact(tokens, "tokens")
    inputs = {"tokens": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    return show_outcome(run_whole(FIT, config, inputs, out, break_lock), as_json)
