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
    current = state.status(artifact)
    rows = state.list_failed_rows(artifact) if failed else iter(())
    if as_json:
        answer = dataclasses.asdict(current)
        echo_json({**answer, "failed_rows": [dataclasses.asdict(row) for row in rows]} if failed else answer)
        return 0
    click.echo(f"{current.at}: {current.kind} by {current.stage}, {current.state}")
    if current.units:
        click.echo(f"  units: {current.units_done} of {current.units} done; rows: {current.rows} planned")
        click.echo(f"  {'rows' if current.state == 'finished' else 'so far'}: {counts_text(current.counts)}")
    elif current.counts:
        click.echo(f"  holds: {counts_text(current.counts)}")
    for each in current.inputs:
        click.echo(f"  {each['role']}: {each['uri']} ({each['state']})")
    for warning in current.warnings:
        click.echo(f"  warning: {warning}")
    click.echo(f"  fingerprint: {current.fingerprint}")
    for row in rows:
        click.echo(f"{row.status}: {row.reason}\t{row.id}")
    return 0
