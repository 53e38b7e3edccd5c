"""`maskmill export DATASET`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from ..manifests.counts import count_of
from ..manifests.exports.formats import FORMATS
from ..pipeline.quantities import size
from .answers import echo_json

if TYPE_CHECKING:
    from ..manifests.exports.run import Exported

_TABLE = "\b\n" + "\n".join(f"{name:12} {what}" for name, what in FORMATS.items())


@click.command(epilog=_TABLE)
@click.argument("dataset", help="Dataset artifact.")
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="Format to write.")
@click.option("--out", metavar="DIR", required=True, help="Folder to make; it must be empty or new.")
@click.option(
    "--images-root", metavar="DIR", default=None, help="Folder of the pictures, if they are no longer where they were."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export in --out, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(dataset: str, to: str, out: str, images_root: str | None, overwrite: bool, as_json: bool) -> int:
    """Write the pictures and masks that the quality rule of DATASET kept, in the format of another tool."""
    from ..manifests.exports.run import export_dataset

    result = export_dataset(dataset, to, out, images_root, overwrite)
    if as_json:
        echo_json(dataclasses.asdict(result))
    else:
        _show(result)
    return 0


def _show(result: "Exported") -> None:
    without = [f"{count} {why}" for why, count in result.left_out.items() if count]
    left_out = f" (left out: {', '.join(without)})" if without else ""
    click.echo(
        f"{result.format}: {count_of(result.rows, 'row')}{left_out}, {count_of(result.files, 'file')}, "
        f"{size(result.bytes)} → {result.at}"
    )
    for what, count in result.lost.items():
        click.echo(f"  {what}: {count:,}")
