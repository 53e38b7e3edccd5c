"""`maskmill manifest LABELS`."""

from typing import Any

import click

from ..manifests.files.place import place
from .options import run_stage, stage_options, with_options


@click.command()
@click.argument("labels")
@with_options(
    click.option("--maps", metavar="DIR", default="", help="Where the maps lie now, if they were moved."),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
    click.option(
        "--ground-truth",
        metavar="LIST|CHECKPOINT",
        default="",
        help="Whose own masks are published: a file with an id in each line, or what was fitted on masks, for those.",
    ),
    click.option(
        "--min-score",
        metavar="RULE",
        default="",
        help="Mark pictures as not kept where a class fails it, such as area>=0.01,agreement>=0.5; deletes nothing.",
    ),
    click.option(
        "--compare-with",
        metavar="LABELS",
        default="",
        help="Another method's labels of the pictures: how far they agree is method_agreement, for rules too.",
    ),
    click.option("--embed-images", is_flag=True, help="Put the pictures' own files inside."),
    click.option("--title", default="", help="Of the dataset, for its description."),
    click.option("--licence", default="", help="Of the dataset: a URL, or a name such as CC-BY-4.0."),
)
@stage_options
def manifest(
    labels: str,
    maps: str,
    images: str,
    ground_truth: str,
    min_score: str,
    compare_with: str,
    embed_images: bool,
    title: str,
    licence: str,
    **values: Any,
) -> int:
    """Publish LABELS, a labels artifact, as a dataset that can be shared."""
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..manifests.artifact.plan import PLAN
    from ..manifests.published.schema import read_id_list
    from ..stages.manifest.stage import STAGE, manifest_config

    opened = open_artifact(labels, "labels")
    given = {"maps": maps, "images": images}
    inputs = {role: place(uri).uri if uri else source_of(opened, role) for role, uri in given.items()}
    if compare_with:
        inputs["compared"] = place(compare_with).uri
    if is_checkpoint := bool(ground_truth) and place(ground_truth).exists(PLAN):
        inputs["seen"] = place(ground_truth).uri
    ids = read_id_list(ground_truth) if ground_truth and not is_checkpoint else []
    config = manifest_config(min_score, embed_images, title, licence, ids)
    return run_stage(STAGE, config, {"labels": opened.place.uri, **inputs}, values)
