"""`maskmill mask TOKENS`."""

from typing import Any

import click

from ..manifests.files.place import place
from .options import run_stage, stage_options, with_options

METHOD = click.option(
    "--method", metavar="M", default="cst", show_default=True, help="cst, cls-attention, ncut or maskcut."
)


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@with_options(
    METHOD,
    click.option(
        "--supports",
        metavar="K|all",
        default="",
        help="cst: 0 finds what stands out by the picture's own class query, K or all look for each of its classes "
        "with other pictures of that class; 8 if left out.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of supports."),
    click.option(
        "--threshold",
        default="",
        help="otsu, a number, or kept-mass:SHARE; the method's own if left out. Kept with each map, cut by refine.",
    ),
    click.option(
        "--instances", metavar="N", type=int, help="maskcut: how many objects to look for in a picture; 3 if left out."
    ),
    click.option(
        "--tau", type=float, help="ncut, maskcut: the cosine above which keys agree; 0.2 and 0.15 if left out."
    ),
    click.option("--per-head", is_flag=True, help="Keep the maps of the heads, too, which enhance reads."),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
    click.option("--model", metavar="CHECKPOINT", default="", help="Of a method that is fitted."),
)
@stage_options
def mask(
    tokens: tuple[str, ...],
    method: str,
    supports: str,
    seed: int,
    threshold: str,
    instances: int | None,
    tau: float | None,
    per_head: bool,
    images: str,
    model: str,
    **values: Any,
) -> int:
    """Make soft maps from TOKENS, a tokens artifact: per picture, or per picture and class. Several TOKENS are views of
    the same pictures, mirrored or of other sizes, whose maps are merged on the grid of the first."""
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..stages.mask.stage import STAGE, mask_config
    from ..stages.mask.views import FURTHER

    opened = open_artifact(tokens[0], "tokens")
    config = mask_config(opened, method, supports, seed, threshold, per_head, instances, tau)
    inputs = {"tokens": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    inputs |= {f"{FURTHER}{number}": place(view).uri for number, view in enumerate(tokens[1:], 2)}
    return run_stage(STAGE, config, inputs | ({"model": place(model).uri} if model else {}), values)
