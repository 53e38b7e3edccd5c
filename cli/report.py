"""`maskmill report WORK|ARTIFACT …`."""

import dataclasses

import click

from ..manifests.counts import count_of
from ..pipeline.quantities import size
from .answers import echo_json


@click.command()
@click.argument("places", metavar="WORK|ARTIFACT...", nargs=-1, required=True, help="Work folder, or artifacts.")
@click.option("--out", metavar="FILE.html", default="report.html", show_default=True, help="File to write.")
@click.option(
    "--pictures",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Show at most this many pictures, drawn evenly.",
)
@click.option(
    "--images-root", metavar="DIR", default="", help="Folder of the pictures, if they are no longer where they were."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def report(places: tuple[str, ...], out: str, pictures: int, images_root: str, as_json: bool) -> int:
    """Write one HTML file that shows a work folder, or artifacts and what they were made from. Reads files only."""
    from ..pipeline.report.page import write_report

    written = write_report(places, out, pictures, images_root)
    if as_json:
        echo_json(dataclasses.asdict(written))
        return 0
    for remark in written.remarks:
        click.echo(f"maskmill: {remark}", err=True)
    missing = f", {written.without_picture} of those without their picture" if written.without_picture else ""
    click.echo(
        f"report: {count_of(written.pictures, 'picture')}, {written.shown} shown{missing}; {size(written.bytes)} "
        f"in {written.seconds:.1f} s → {written.at}"
    )
    return 0
