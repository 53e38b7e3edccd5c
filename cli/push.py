"""`maskmill push DATASET URL`."""

import dataclasses

import click

from ..manifests.counts import count_of
from ..pipeline.quantities import size
from .answers import echo_json


@click.command()
@click.argument("dataset", help="Dataset, or any other finished artifact.")
@click.argument("url", help="Folder, s3://… or gs://….")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def push(dataset: str, url: str, as_json: bool) -> int:
    """Upload DATASET to URL, where other teams pull it.

    Only files that are missing there are sent. Rerun to resume; a stopped push creates no version. Changed
    bytes make a new version, which becomes the latest; earlier versions stay.
    """
    from ..pipeline.sharing.sharing import push as pushed

    result = pushed(dataset, url, is_shown=not as_json)
    if as_json:
        echo_json(dataclasses.asdict(result))
        return 0
    click.echo(
        f"{result.kind}: {count_of(result.files, 'file')}, {size(result.bytes)}; "
        f"sent {count_of(result.moved_files, 'file')}, {size(result.moved_bytes)} in {result.seconds:.1f} s → "
        f"{result.at}@{result.version[:12]}"
    )
    return 0
