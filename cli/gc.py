"""`maskmill gc WORK`."""

import dataclasses

import click

from ..pipeline.quantities import size
from .answers import echo_json
from .tables import print_table


@click.command()
@click.argument("work", help="Work folder.")
@click.option("--yes", is_flag=True, help="Delete them; otherwise they are only listed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def gc(work: str, yes: bool, as_json: bool) -> int:
    """List the artifacts in WORK that are no longer needed, and their size.

    These are kept: datasets and checkpoints, what is unfinished or held by a run, what the last complete run or sweep
    made, everything these were made from, and their metrics. Only WORK is read, so an artifact that
    only a dataset elsewhere needs is listed too.
    """
    from ..pipeline.answers.gc import clean

    cleaning = clean(work, yes)
    going = sum(entry.bytes for entry in cleaning.to_delete)
    if as_json:
        echo_json({**dataclasses.asdict(cleaning), "bytes": going})
        return 0
    default = "deleted" if yes else "can go"
    rows = [(entry.name, entry.kind, size(entry.bytes), entry.why or default) for entry in cleaning.entries]
    print_table(("artifact", "kind", "bytes", ""), rows)
    kept = f"{len(cleaning.to_keep)} kept ({size(sum(entry.bytes for entry in cleaning.to_keep))})"
    if yes:
        click.echo(f"{len(cleaning.to_delete)} deleted, {size(going)}; {kept} in {cleaning.at}")
    else:
        more = "; --yes deletes them" if cleaning.to_delete else ""
        click.echo(f"{len(cleaning.to_delete)} can go, {size(going)}; {kept} in {cleaning.at}{more}")
    return 0
