"""`maskmill verify DIR`."""

import click

from ..manifests.counts import count_of
from ..pipeline.answers.verify import verify as verdict_on
from .answers import echo_json


@click.command()
@click.argument("artifact", help="Any artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(artifact: str, as_json: bool) -> int:
    """Check every file of ARTIFACT against its digest. Exits 4 if one differs, 2 if the artifact is unfinished."""
    found = verdict_on(artifact)
    if as_json:
        echo_json(
            {
                "at": found.at.uri,
                "finished": found.finished,
                "files": found.files,
                "faults": list(found.faults),
                "strangers": list(found.strangers),
            }
        )
        return found.exit_code
    for fault in found.faults:
        click.echo(fault, err=True)
    for stranger in found.strangers:
        click.echo(f"{found.at.path(stranger)} is not part of the artifact; no command reads it", err=True)
    verdict = "damaged" if found.faults else "intact" if found.finished else "intact so far, but unfinished"
    click.echo(f"{found.at}: {verdict}; {count_of(found.files, 'file')} right, {len(found.faults)} wrong")
    return found.exit_code
