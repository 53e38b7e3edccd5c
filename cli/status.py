"""`maskmill status DIR`."""

import dataclasses

import click

from ..pipeline.answers import status as state
from .answers import counts_text, echo_json


@click.command()
@click.argument("artifact", help="Any artifact, finished or not.")
@click.option("--failed", is_flag=True, help="Also list the rows that are not ok, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def status(artifact: str, failed: bool, as_json: bool) -> int:
    """Show how far ARTIFACT is, what failed, and what it was made from. Reads files only."""
    found = state.status(artifact)
    rows = state.list_failed_rows(artifact) if failed else iter(())
    if as_json:
        answer = dataclasses.asdict(found)
        echo_json({**answer, "failed_rows": [dataclasses.asdict(row) for row in rows]} if failed else answer)
        return 0
    click.echo(f"{found.at}: {found.kind} by {found.stage}, {found.state}")
    if found.units:
        click.echo(f"  units: {found.units_done} of {found.units} done; rows: {found.rows} planned")
        click.echo(f"  {'rows' if found.state == 'finished' else 'so far'}: {counts_text(found.counts)}")
    elif found.counts:
        click.echo(f"  holds: {counts_text(found.counts)}")
    for each in found.inputs:
        click.echo(f"  {each['role']}: {each['uri']} ({each['state']})")
    for warning in found.warnings:
        click.echo(f"  warning: {warning}")
    click.echo(f"  fingerprint: {found.fingerprint}")
    for row in rows:
        click.echo(f"{row.status}: {row.reason}\t{row.id}")
    return 0
