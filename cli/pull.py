"""`maskmill pull URL DIR`."""

import dataclasses

import click

from ..manifests.counts import count_of
from ..pipeline.quantities import size
from .answers import echo_json


@click.command()
@click.argument(
    "url", metavar="URL[@DIGEST]", help="Where it was pushed; DIGEST names a version, the latest by default."
)
@click.argument("directory", metavar="DIR", help="Folder to fetch into; it must be empty or new.")
@click.option("--json", "as_json", is_flag=True, help="Print the copy as JSON.")
def pull(url: str, directory: str, as_json: bool) -> int:
    """Download a version from URL into DIR.

    Every file is checked on arrival, and DIR appears once all are right. Rerun to resume; if DIR holds that version
    already, it is checked.
    """
    from ..pipeline.sharing.sharing import pull as pulled

    copy = pulled(url, directory, is_shown=not as_json)
    if as_json:
        echo_json(dataclasses.asdict(copy))
        return 0
    click.echo(
        f"{copy.kind}: version {copy.version[:12]}, {count_of(copy.files, 'file')}, {size(copy.bytes)}, all verified; "
        f"fetched {count_of(copy.moved_files, 'file')}, {size(copy.moved_bytes)} in {copy.seconds:.1f} s → {copy.at}"
    )
    return 0
