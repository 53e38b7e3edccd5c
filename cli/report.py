"""`maskmill report WORK|ARTIFACT …`."""

import dataclasses

import click

from .answers import echo_json, size


@click.command()
@click.argument("found", metavar="WORK|ARTIFACT...", nargs=-1, required=True)
@click.option("--out", metavar="FILE.html", default="report.html", show_default=True, help="The file that is written.")
@click.option(
    "--pictures", type=click.IntRange(1), default=400, show_default=True, help="How many are shown at most; a sample."
)
@click.option("--images-root", metavar="DIR", default="", help="Where the pictures lie now, if they were moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def report(found: tuple[str, ...], out: str, pictures: int, images_root: str, as_json: bool) -> int:
    """Show what a run made, or an artifact with what it was made from, as one HTML file. Reads files only."""
    from ..pipeline.report.page import write_report

    written = write_report(found, out, pictures, images_root)
    if as_json:
        echo_json(dataclasses.asdict(written))
        return 0
    for remark in written.remarks:
        click.echo(f"maskmill: {remark}", err=True)
    missing = f", {written.without_picture} of those without their picture" if written.without_picture else ""
    click.echo(
        f"report: {written.pictures} pictures, {written.shown} shown{missing}; {size(written.bytes)} "
        f"in {written.seconds:.1f} s → {written.at}"
    )
    return 0
