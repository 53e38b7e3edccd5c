"""`maskmill push DATASET URL`."""

import dataclasses

import click

from .answers import echo_json, files_text, size


@click.command()
@click.argument("dataset")
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def push(dataset: str, url: str, as_json: bool) -> int:
    """Put DATASET, or any other finished artifact, at URL for others to pull: a folder, s3://…, gs://….

    Only files that are not there yet travel. A push that was stopped shows nothing, and the same command goes on. Every
    push of something else is a version of its own beside the earlier ones, and becomes the latest.
    """
    from ..pipeline.sharing.sharing import push as pushed

    found = pushed(dataset, url, is_shown=not as_json)
    if as_json:
        echo_json(dataclasses.asdict(found))
        return 0
    click.echo(
        f"{found.kind}: {files_text(found.files)}, {size(found.bytes)}; sent {files_text(found.moved_files)}, "
        f"{size(found.moved_bytes)} in {found.seconds:.1f} s → {found.at}@{found.version[:12]}"
    )
    return 0
