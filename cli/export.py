"""`maskmill export DATASET`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from ..manifests.exports.formats import FORMATS
from .answers import echo_json, size

if TYPE_CHECKING:
    from ..manifests.exports.run import Exported

_TABLE = "\b\n" + "\n".join(f"{name:12} {what}" for name, what in FORMATS.items())


@click.command(epilog=_TABLE)
@click.argument("dataset")
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="What is to read it.")
@click.option("--out", metavar="DIR", required=True, help="A folder that is empty or not there; it is made whole.")
@click.option("--images-root", metavar="DIR", default=None, help="Where the pictures lie now, if they were moved.")
@click.option("--overwrite", is_flag=True, help="Replace the export that lies there, and nothing but that.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(dataset: str, to: str, out: str, images_root: str | None, overwrite: bool, as_json: bool) -> int:
    """Write the pictures and masks of DATASET, those that its quality rule kept, as another tool reads them."""
    from ..manifests.exports.run import export_dataset

    found = export_dataset(dataset, to, out, images_root, overwrite)
    if as_json:
        echo_json(dataclasses.asdict(found))
    else:
        _show(found)
    return 0


def _show(found: "Exported") -> None:
    without = [f"{count} {why}" for why, count in found.left_out.items() if count]
    left_out = f" (left out: {', '.join(without)})" if without else ""
    click.echo(f"{found.format}: {found.rows} rows{left_out}, {found.files} files, {size(found.bytes)} → {found.at}")
    for what, count in found.lost.items():
        click.echo(f"  {what}: {count:,}")
